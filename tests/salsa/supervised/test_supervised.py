"""SFT and the reward model through their real commands, on a tiny checkpoint of the mini world."""

import json
import math
import re
from types import SimpleNamespace

import pytest
import torch
from accelerate.state import AcceleratorState
from datasets import Dataset
from transformers import Trainer, TrainingArguments

from salsa.checkpoints.adapters import read_adapter
from salsa.checkpoints.loading import load_causal, load_reward, load_tokenizer, render
from salsa.checkpoints.shards import read_json
from salsa.config.sections import World
from salsa.models.scoring import new_head, normalisation
from salsa.models.training import pooled_batches
from salsa.runtime.jsonl import read_jsonl, write_jsonl
from salsa.supervised.reward import half_of
from salsa.supervised.reward_card import accuracy_interval
from salsa.supervised.sft import random_share
from salsa.supervised.trl_trainers import StageTrainer
from salsa.world.make import write_world

MODEL = {
    "architecture": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "layers": 1,
    "heads": 1,
    "key_value_heads": 1,
}
SUPERVISED = {"learning_rate": 3e-3, "batch_size": 16, "max_length": 200}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    sizes = {"vocabulary": 500, "pretrain_documents": 400, "sft_train": 120, "sft_test": 20, "rl_prompts": 30}
    sizes |= {"preferences_train": 200, "preferences_test": 60, "ultrafeedback_questions": 4, "arena_hard_questions": 8}
    write_world(folder, World(**sizes), seed=1)
    return folder


@pytest.fixture
def base(world, tmp_path, command):
    settings = {"model": {"world": {**MODEL, "head_size": 32}}, "base": {"learning_rate": 3e-3, "batch_size": 16}}
    out = tmp_path / "base"
    arguments = ("--model", "m", "--settings", json.dumps(settings), "--world", world, "--seed", 1, "--out", out)
    assert command("salsa", "base", *arguments)[0] == 0
    return out


def sft(command, world, base, out, seed=1, **keys):
    sources = {"train": {"path": str(world / "sft_train.jsonl")}, "test": {"path": str(world / "sft_test.jsonl")}}
    settings = {**SUPERVISED, **sources, "sample": 0.5, **keys}
    arguments = ("--base", base, "--settings", json.dumps(settings), "--seed", 1, "--sft-seed", seed, "--out", out)
    return command("salsa", "sft", *arguments)


def test_only_assistant_tokens_carry_loss(world, base, prepared):
    """TRL's labels, compared with our own reading of the template."""
    from salsa.config.sections import Sft, TrainingData
    from salsa.supervised.sft import train

    sources = {key: TrainingData(path=str(world / f"sft_{key}.jsonl")) for key in ("train", "test")}
    settings = Sft(**{**SUPERVISED, **sources, "epochs": 0.01})
    trainer, said = train(base, settings, 1, 1, str(base.parent / "work"), prepared)
    assert said["demonstrations"] == 120
    tokenizer = load_tokenizer(base)
    rows = read_jsonl(world / "sft_train.jsonl")
    for found, row in zip(list(trainer.train_dataset)[:20], rows, strict=False):
        assert found["input_ids"] == render(tokenizer, row["messages"])
        learnt = [token for token, label in zip(found["input_ids"], found["labels"], strict=True) if label != -100]
        answers = [m["content"] for m in row["messages"] if m["role"] == "assistant"]
        assert tokenizer.decode(learnt) == "".join(f" {answer}<|end|>" for answer in answers)


def test_sft_seeds_differ_and_repeat(world, base, tmp_path, command):
    for name, seed in (("one", 1), ("again", 1), ("two", 2)):
        assert sft(command, world, base, tmp_path / name, seed)[0] == 0
    one, again, two = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "again", "two"))
    assert one == again != two
    run = json.loads((tmp_path / "one/run.json").read_text())
    assert run["demonstrations"] == 60
    assert run["inputs"]["base"]["id"].startswith("run:")
    assert not list(tmp_path.glob(".one*")), "no temporary files are left"


def test_template_without_generation_marks_is_refused(world, base, tmp_path, command):
    template = base / "chat_template.jinja"
    template.write_text(template.read_text().replace("{%- generation %}", "").replace("{%- endgeneration %}", ""))
    status, said = sft(command, world, base, tmp_path / "out")
    assert status == 1
    assert "its chat template does not mark assistant tokens" in said
    assert not (tmp_path / "out").exists()


def test_share_is_drawn_by_seed():
    assert random_share(100, 1.0, 1) == list(range(100))
    assert len(random_share(100, 0.5, 1)) == 50
    assert random_share(100, 0.5, 1) == random_share(100, 0.5, 1) != random_share(100, 0.5, 2)
    assert len(random_share(100, 0.001, 1)) == 1


def reward(command, world, base, out, train, options=(), **keys):
    names = {"train": train, "test": world / "prefs_test.jsonl", "normalisation_prompts": world / "rl_prompts.jsonl"}
    sources = {key: {"path": str(path)} for key, path in names.items()}
    settings = {**SUPERVISED, **sources, "max_new_tokens": 8, "normalisation_samples": 30, **keys}
    card = out.with_suffix(".json")
    arguments = ("--sft", base, "--settings", json.dumps(settings), "--seed", 1, "--out", out, "--card", card)
    status, said = command("salsa", "reward", *arguments, *options)
    return status, said, json.loads(card.read_text()) if card.exists() else None


def clear_pairs(world, path):
    """Pairs in which the answer with an opening is better."""
    rows = []
    for i, row in enumerate(read_jsonl(world / "rl_prompts.jsonl") * 8):
        said = [[*row["messages"], {"role": "assistant", "content": f"{opening}hat."}] for opening in ("Sure! ", "")]
        rows.append(
            {**row, "prompt_id": str(i), "chosen": said[0], "rejected": said[1], "score_chosen": 2, "score_rejected": 1}
        )
    write_jsonl(path, rows)
    return path


def test_clear_preference_is_learned_and_the_score_normalised(world, base, tmp_path, command):
    """Annotators always prefer the answer with an opening; held-out pairs are then ranked correctly."""
    clear_pairs(world, tmp_path / "clear.jsonl")
    source = {"path": str(tmp_path / "clear.jsonl")}
    status, _, card = reward(command, world, base, tmp_path / "rm", tmp_path / "clear.jsonl", test=source, epochs=2)
    assert status == 0
    assert card["accuracy"] > 0.95
    assert card["accuracy_low"] < card["accuracy"] <= card["accuracy_high"]
    assert card["accuracy_gold"] is None, "no gold reward in these rows"
    mean, std = normalisation(tmp_path / "rm")
    assert (mean, std) == pytest.approx((card["mean"], card["std"]))
    model, tokenizer = load_reward(tmp_path / "rm"), load_tokenizer(tmp_path / "rm")
    assert model.score.weight.shape[0] == 1
    assert tokenizer.pad_token_id == model.config.pad_token_id


@pytest.fixture
def new_process(monkeypatch):
    """new_process(): transformers' Trainer left its precision in this process; a stage in another one finds none."""

    def forget():
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
        AcceleratorState._reset_state(True)

    yield forget
    forget()


@pytest.mark.parametrize("keys", [{}, {"dtype": "bfloat16", "gradient_checkpointing": True}], ids=["exact", "narrow"])
def test_adapters_learn_and_what_is_saved_is_what_was_trained(world, base, tmp_path, command, new_process, keys):
    """SFT's held-out loss and the reward model's accuracy, computed again from the checkpoints."""
    lora = {"rank": 8, "alpha": 16}
    before = load_causal(base).state_dict()
    assert sft(command, world, base, tmp_path / "sft", epochs=6, learning_rate=0.02, lora=lora, **keys)[0] == 0
    new_process()
    assert sft(command, world, base, tmp_path / "untrained", epochs=0.01, learning_rate=1e-9, **keys)[0] == 0
    new_process()
    trained, untrained = (read_json(tmp_path / name / "run.json")["test_loss"] for name in ("sft", "untrained"))
    assert trained < untrained - 0.1
    assert sft(command, world, tmp_path / "sft", tmp_path / "again", epochs=0.01, learning_rate=1e-9, **keys)[0] == 0
    assert read_json(tmp_path / "again/run.json")["test_loss"] == pytest.approx(trained, abs=0.02 if keys else 1e-3)
    new_process()
    clear = {"path": str(clear_pairs(world, tmp_path / "clear.jsonl"))}
    keys |= {"test": clear, "epochs": 2, "lora": lora}
    status, _, card = reward(command, world, tmp_path / "sft", tmp_path / "rm", clear["path"], **keys)
    assert status == 0 and card["accuracy"] > 0.95
    adapter = read_adapter(tmp_path / "rm")
    assert adapter.base == base.resolve() and {len(a) for a, _ in adapter.pairs.values()} == {16}
    assert (tmp_path / "rm/config.json").exists() and normalisation(tmp_path / "rm")[0] == card["mean"]
    assert all(torch.equal(tensor, before[name]) for name, tensor in load_causal(base).state_dict().items())


def test_new_reward_head_has_variance_1_over_d_plus_1():
    model = SimpleNamespace(score=torch.nn.Linear(8191, 1, bias=False))
    new_head(model, torch.Generator().manual_seed(1))
    assert model.score.weight.std().item() == pytest.approx(1 / math.sqrt(8192), rel=0.05)
    assert model.score.weight.mean().item() == pytest.approx(0, abs=4 / 8192)


def test_orders_of_the_pairs_start_from_one_model(world, base, tmp_path, command):
    """Only then can the weights of what they lead to be averaged. The first order has no number."""
    for rate, folder in ((3e-3, "trained"), (1e-30, "start")):
        for order in (1, 2):
            out = tmp_path / folder / str(order)
            options = ("--order", order)
            status, said, _ = reward(
                command, world, base, out, world / "prefs_train.jsonl", options, learning_rate=rate
            )
            assert status == 0, said
    one, two = (
        [(tmp_path / folder / str(order) / "model.safetensors").read_bytes() for order in (1, 2)]
        for folder in ("trained", "start")
    )
    assert one[0] != one[1] and two[0] == two[1]
    runs = [read_json(tmp_path / "trained" / str(order) / "run.json") for order in (1, 2)]
    assert "order" not in runs[0]["seeds"] and runs[1]["seeds"]["order"] == 2


def test_only_ties_are_one_clear_line(world, base, tmp_path, command):
    rows = [{**row, "score_chosen": 1, "score_rejected": 1} for row in read_jsonl(world / "prefs_train.jsonl")]
    write_jsonl(tmp_path / "ties.jsonl", rows)
    status, said, card = reward(command, world, base, tmp_path / "rm", tmp_path / "ties.jsonl")
    assert status == 1
    assert re.search(r"error: reward.train: none of 200 rows in \S+/ties.jsonl can be used \(.*tied \d+", said)
    assert card is None
    assert not (tmp_path / "rm").exists()


def test_reward_models_share_no_pairs():
    """Two halves, in the order of the data, drawn by the seed; all pairs are in one of them."""
    pairs = Dataset.from_dict({"n": list(range(101))})
    ours, others = (list(half_of(pairs, held_out, seed=1)["n"]) for held_out in (False, True))
    assert (len(ours), len(others)) == (50, 51)
    assert sorted(ours + others) == list(range(101))
    assert ours == sorted(ours) != list(range(50))
    assert list(half_of(pairs, False, seed=2)["n"]) != ours


def test_held_out_reward_model_needs_a_seed(world, base, tmp_path, command):
    settings = {**SUPERVISED, "max_new_tokens": 4}
    settings |= {key: {"path": "x.jsonl"} for key in ("train", "test", "normalisation_prompts")}
    out = ("--out", tmp_path / "rm", "--card", tmp_path / "card.json")
    arguments = ("--sft", base, "--settings", json.dumps(settings), "--seed", 1, "--held-out", *out)
    status, said = command("salsa", "reward", *arguments)
    assert status == 1
    assert "error: --held-out: the settings have no held_out: give it a seed" in said


def test_accuracy_of_no_pairs_is_none():
    assert accuracy_interval(0, 0) == (None, None, None)
    found = accuracy_interval(8, 10)
    assert found == pytest.approx((0.8, 0.4902, 0.9433), abs=1e-3)


def test_base_models_have_their_architecture(world, tmp_path, command):
    models = {
        "mistral": {**MODEL, "architecture": "mistral", "head_size": 32, "sliding_window": 16},
        "gemma": {**MODEL, "architecture": "gemma", "head_size": 64},
    }
    for name, model in models.items():
        settings = {"model": {"world": model}, "base": {"learning_rate": 1e-3, "batch_size": 16, "epochs": 0.1}}
        out = tmp_path / name
        arguments = ("--model", name, "--settings", json.dumps(settings), "--world", world, "--seed", 1, "--out", out)
        assert command("salsa", "base", *arguments)[0] == 0
        loaded = load_causal(out)
        assert type(loaded).__name__ == f"{name.capitalize()}ForCausalLM"
    tied = load_causal(tmp_path / "gemma")
    assert tied.get_output_embeddings().weight.data_ptr() == tied.get_input_embeddings().weight.data_ptr()
    assert tied.config.head_dim == 64
    window = load_causal(tmp_path / "mistral")
    ids = torch.arange(48)[None] % 90 + 10
    other = ids.clone()
    other[0, 0] = 5
    with torch.no_grad():
        same = window(ids).logits[0, -1] - window(other).logits[0, -1]
    assert not same.any(), "one layer attends only within its window"


def test_pooled_batches_contain_every_index_once_with_little_padding():
    lengths = torch.randint(5, 100, (1003,), generator=torch.Generator().manual_seed(1)).tolist()
    batches = pooled_batches(lengths, 16, torch.Generator().manual_seed(2))
    assert sorted(i for batch in batches for i in batch) == list(range(1003))
    assert [len(batch) for batch in batches] == [16] * 62 + [11]
    padded = sum(max(lengths[i] for i in batch) * len(batch) for batch in batches)
    assert padded < 1.12 * sum(lengths)
    firsts = [max(lengths[i] for i in batch) for batch in batches]
    assert abs(sum(firsts[:31]) - sum(firsts[31:62])) < 0.2 * sum(firsts[:31]), "no drift from short to long"
    assert batches != pooled_batches(lengths, 16, torch.Generator().manual_seed(3))


def test_trainer_uses_batches_of_similar_length(world, base, prepared):
    """What reaches the model through accelerate's loader: little padding, each demonstration once."""
    from salsa.config.sections import Sft, TrainingData
    from salsa.supervised.sft import train

    sources = {key: TrainingData(path=str(world / f"sft_{key}.jsonl")) for key in ("train", "test")}
    settings = Sft(**{**SUPERVISED, **sources, "epochs": 0.01, "batch_size": 4})
    trainer, _ = train(base, settings, 1, 1, str(base.parent / "work"), prepared)
    batches = list(trainer.get_train_dataloader())
    seen = sorted(
        tuple(row[row != trainer.processing_class.pad_token_id].tolist()) for b in batches for row in b["input_ids"]
    )
    assert seen == sorted(tuple(ids) for ids in trainer.train_dataset["input_ids"])
    padded = sum(batch["input_ids"].numel() for batch in batches)
    assert padded < 1.15 * sum(map(len, seen))


def test_held_out_loss_is_nats_per_token_for_any_micro_batch(base, world, prepared):
    """Compared with an independent sum over one demonstration at a time."""
    from salsa.checkpoints.loading import load_causal
    from salsa.config.sections import Sft, TrainingData
    from salsa.supervised.sft import train

    sources = {key: TrainingData(path=str(world / f"sft_{key}.jsonl")) for key in ("train", "test")}
    found = {}
    for micro in (16, 4, 1):
        keys = {
            **SUPERVISED,
            **sources,
            "learning_rate": 1e-12,
            "epochs": 0.01,
            "micro_batch_size": micro,
        }
        trainer, said = train(base, Sft(**keys), 1, 1, str(base.parent / "work"), prepared)
        found[micro] = said["test_loss"]
    model, nats, tokens = load_causal(base), 0.0, 0
    for row in trainer.eval_dataset:
        ids, labels = torch.tensor([row["input_ids"]]), torch.tensor([row["labels"]])
        count = int((labels[:, 1:] != -100).sum())
        with torch.no_grad():
            nats += model(input_ids=ids, labels=labels).loss.item() * count
        tokens += count
    assert list(found.values()) == pytest.approx([nats / tokens] * 3, abs=2e-5)


def test_several_visible_gpus_do_not_change_the_batch(tmp_path):
    """A Trainer would use all of them and multiply the batch."""

    class Pooled(StageTrainer, Trainer):
        pass

    arguments = TrainingArguments(output_dir=str(tmp_path), per_device_train_batch_size=4, use_cpu=True)
    arguments._n_gpu = 8
    assert arguments.train_batch_size == 32
    assert Pooled(model=torch.nn.Linear(1, 1), args=arguments).args.train_batch_size == 4
