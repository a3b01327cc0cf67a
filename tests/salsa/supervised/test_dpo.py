"""DPO through its real command, compared with TRL's DPOTrainer and its own reference model."""

import json
import math

import pytest
import torch
from datasets import Dataset
from trl import DPOConfig, DPOTrainer

from salsa.checkpoints.adapters import read_adapter
from salsa.checkpoints.loading import load_causal, load_tokenizer
from salsa.checkpoints.saving import kept_checkpoints
from salsa.config.algorithms import Dpo
from salsa.config.references import Fixed, MeanKl
from salsa.lora.shared import SharedBase
from salsa.runtime.jsonl import read_jsonl, write_jsonl
from salsa.supervised.dpo import train


@pytest.fixture(scope="module")
def pairs_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    rows = []
    for i in range(16):
        asked = {"role": "user", "content": f"Name the colour of grass {i}."}
        said = [{"role": "assistant", "content": text} for text in ("The grass is green.", "hi")]
        rows.append({"chosen": [asked, said[0]], "rejected": [asked, said[1]], "score_chosen": 2, "score_rejected": 1})
    write_jsonl(path, rows)
    return path


def assert_same_weights(one, other) -> None:
    tensors = load_causal(other).state_dict()
    assert all(torch.equal(weight, tensors[name]) for name, weight in load_causal(one).state_dict().items())


def settings(pairs_file, **keys) -> dict:
    base = {"train": {"path": str(pairs_file)}, "beta": 0.5, "learning_rate": 1e-3, "batch_size": 4, "max_length": 128}
    return {**base, "warmup_ratio": 0.0, "schedule": "constant", **keys}


@pytest.fixture
def dpo(command, llamas, pairs_file, tmp_path):
    """dpo(name, references, strategy) -> metrics. The policy is in tmp_path/name."""

    def run(name: str, *references, strategy=None, init=llamas[0], **keys):
        options = ["--init", init, "--reference", *references, "--seed", 1, "--out", tmp_path / name]
        options += ["--settings", json.dumps(settings(pairs_file, **keys))]
        options += ["--strategy", json.dumps(strategy)] if strategy else []
        status, said = command("salsa", "dpo", *options)
        assert status == 0, said
        return read_jsonl(tmp_path / f"{name}.jsonl")

    return run


def test_loss_starts_at_log_2_from_its_reference_and_falls(dpo, llamas, tmp_path):
    rows = dpo("own", llamas[0], epochs=3)
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert rows[0]["reward_margin"] == pytest.approx(0, abs=1e-4)
    assert rows[-1]["loss"] < 0.3 and rows[-1]["reward_accuracy"] == 1
    assert [row["step"] for row in rows] == list(range(12))
    assert load_causal(tmp_path / "own").config.vocab_size == load_causal(llamas[0]).config.vocab_size
    assert json.loads((tmp_path / "own/run.json").read_text())["settings"]["reference"] == {"fixed": {}}


def test_mean_of_a_model_with_itself_is_that_model(dpo, llamas, tmp_path):
    one = dpo("one", llamas[1])
    twice = dpo("twice", llamas[1], llamas[1], strategy={"mean_kl": {}})
    both = dpo("both", *llamas, strategy={"mean_kl": {}})
    assert one == twice != both
    assert one[0]["reward_margin"] != pytest.approx(0, abs=1e-2), "the reference differs from the initial model"


@pytest.mark.parametrize("strategy", [Fixed(), MeanKl()])
def test_figures_equal_trls_with_a_reference_model(strategy, llamas, pairs_file, prepared, tmp_path):
    """Fixed: TRL holds the reference itself. With the mean of a model and the initial one, figures are half as large.
    All pairs form one batch, so both see the same.
    """
    config = Dpo.model_validate(settings(pairs_file, batch_size=16, epochs=3))
    references = [llamas[1]] if isinstance(strategy, Fixed) else llamas
    _, rows, counts = train(llamas[0], references, strategy, config, 1, 1, str(tmp_path / "ours"), prepared)
    assert counts["rows"] == counts["used"] == 16
    pairs = [{side: row[side] for side in ("chosen", "rejected")} for row in read_jsonl(pairs_file)]
    trainer = DPOTrainer(
        model=load_causal(llamas[0]),
        ref_model=load_causal(llamas[1]),
        args=DPOConfig(
            output_dir=str(tmp_path / "theirs"),
            beta=0.5,
            learning_rate=1e-3,
            per_device_train_batch_size=16,
            max_length=128,
            use_cpu=True,
            report_to="none",
            logging_steps=1,
            num_train_epochs=3,
            lr_scheduler_type="constant",
            save_strategy="no",
            disable_tqdm=True,
            bf16=False,
            gradient_checkpointing=False,
        ),
        train_dataset=Dataset.from_list(pairs),
        processing_class=load_tokenizer(llamas[0]),
    )
    trainer.train()
    theirs = [row for row in trainer.state.log_history if "rewards/margins" in row]
    assert len(theirs) == len(rows) == 3
    if isinstance(strategy, Fixed):
        for mine, row in zip(rows, theirs, strict=True):
            assert mine["loss"] == pytest.approx(row["loss"], rel=1e-3)
            assert mine["reward_margin"] == pytest.approx(row["rewards/margins"], rel=1e-3)
    else:
        assert rows[0]["reward_margin"] == pytest.approx(theirs[0]["rewards/margins"] / 2, rel=1e-3)


@pytest.mark.parametrize("lora", [None, {"rank": 2}])
def test_kept_checkpoint_is_the_policy_of_a_run_that_ends_there(lora, dpo, llamas, tmp_path):
    """With a constant learning rate; keeping it changes nothing of the run."""
    dpo("short", llamas[1], epochs=0.5, lora=lora)
    plain = dpo("plain", llamas[1], lora=lora)
    assert dpo("kept", llamas[1], checkpoints_at=[2], lora=lora) == plain and len(plain) == 4
    assert kept_checkpoints(tmp_path / "plain") == {}
    [kept] = kept_checkpoints(tmp_path / "kept").values()
    assert_same_weights(kept, tmp_path / "short")
    assert_same_weights(tmp_path / "kept", tmp_path / "plain")
    assert kept.name == "2" and load_tokenizer(kept).chat_template


def test_checkpoint_after_the_end_is_refused(command, llamas, pairs_file, tmp_path):
    options = ["--init", llamas[0], "--reference", llamas[0], "--seed", 1, "--out", tmp_path / "x"]
    given = json.dumps(settings(pairs_file, checkpoints_at=[2, 4]))
    status, said = command("salsa", "dpo", *options, "--settings", given)
    assert status == 1
    assert said == "error: dpo.checkpoints_at: 4 is not before the last of 4 steps: remove it\n"


def test_moving_reference_is_refused(command, llamas, pairs_file, tmp_path):
    options = ["--init", llamas[0], "--reference", llamas[0], "--strategy", '{"ema": {}}', "--seed", 1]
    status, said = command(
        "salsa", "dpo", *options, "--settings", json.dumps(settings(pairs_file)), "--out", tmp_path / "x"
    )
    assert status == 1
    assert said == "error: --strategy ema changes during training: DPO needs a fixed reference\n"


def test_references_on_the_policys_base_score_like_models_of_their_own(dpo, llamas, tmp_path, command, monkeypatch):
    """With LoRA a reference is an adapter beside the trained one. Loaded by itself, it gives the same figures."""
    lora = {"rank": 2, "targets": ["q_proj", "down_proj"]}
    dpo("first", llamas[0], lora=lora)
    options = ["--ingredient", f"{tmp_path / 'first'}=0.5", "--ingredient", f"{llamas[0]}=0.5"]
    assert command("salsa", "soup", *options, "--out", tmp_path / "soup")[0] == 0
    again = {"init": tmp_path / "first", "lora": lora, "strategy": {"mean_kl": {"weights": [0.75, 0.25]}}}
    shared = dpo("shared", tmp_path / "soup", tmp_path / "first", **again)
    monkeypatch.setattr(SharedBase, "has", lambda *_: False)
    alone = dpo("alone", tmp_path / "soup", tmp_path / "first", **again)
    assert abs(shared[0]["reward_chosen"]) > 0.01  # the soup is not where the policy starts
    for one, other in zip(shared, alone, strict=True):
        assert one == pytest.approx(other, abs=1e-3)
    stored = load_causal(tmp_path / "shared").state_dict()
    assert torch.equal(stored["lm_head.weight"], load_causal(llamas[0]).state_dict()["lm_head.weight"])
    assert read_adapter(tmp_path / "shared").base == llamas[0].resolve()
