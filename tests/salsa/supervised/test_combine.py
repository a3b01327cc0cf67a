"""Several reward models as one reward, through the real command, recomputed with transformers' own forward pass."""

import json
import shutil
import statistics

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from salsa.checkpoints.ensembles import combined, read_ensemble
from salsa.checkpoints.loading import load_tokenizer, render
from salsa.checkpoints.shards import read_json
from salsa.config.sections import Reward
from salsa.models.scoring import normalisation
from salsa.runtime.errors import UserError
from salsa.runtime.jsonl import write_jsonl
from salsa.runtime.seeds import derive_seed, run_seed
from salsa.supervised.reward_card import samples_of

QUESTIONS = [f"Name the colour of grass, {number}." for number in range(12)]


@pytest.fixture(scope="module")
def models(make_checkpoint, tmp_path_factory):
    """Three reward models with scales of their own."""
    folder, found = tmp_path_factory.mktemp("rewards"), []
    for seed in (3, 4, 5):
        found.append(make_checkpoint(folder / str(seed), seed=seed, reward=True, scale=6))
        config = read_json(found[-1] / "config.json")
        (found[-1] / "config.json").write_text(json.dumps({**config, "reward_mean": seed / 2, "reward_std": 1 / seed}))
    return found


@pytest.fixture(scope="module")
def dialogues():
    """Chosen and rejected dialogues."""
    answers = ("It is green.", "Seven.")
    return [
        [[{"role": "user", "content": q}, {"role": "assistant", "content": f"{answer} {len(q)}"}] for answer in answers]
        for q in QUESTIONS
    ]


@pytest.fixture
def combine(llamas, models, dialogues, tmp_path, command):
    """combine(by) -> the folder and its card."""
    rows = [
        {
            "prompt_id": str(i),
            "prompt": q,
            "chosen": pair[0],
            "rejected": pair[1],
            "score_chosen": 2,
            "score_rejected": 1,
        }
        for i, (q, pair) in enumerate(zip(QUESTIONS, dialogues, strict=True))
    ]
    write_jsonl(tmp_path / "pairs.jsonl", rows)
    prompts = [{"prompt_id": str(i), "prompt": q} for i, q in enumerate(QUESTIONS)]
    write_jsonl(tmp_path / "prompts.jsonl", prompts)
    names = {"train": "pairs", "test": "pairs", "normalisation_prompts": "prompts"}
    settings = {key: {"path": str(tmp_path / f"{name}.jsonl")} for key, name in names.items()}
    settings |= {"learning_rate": 1e-3, "batch_size": 5, "max_length": 99, "max_new_tokens": 9}

    def run(by, given=models, status=0):
        out, card = tmp_path / by, tmp_path / f"{by}.json"
        arguments = ["--by", by, "--sft", llamas[0], "--settings", json.dumps(settings), "--seed", 1, "--run", "m"]
        arguments += ["--out", out, "--card", card, "--reward", *given]
        found, said = command("salsa", "combine", *arguments)
        assert found == status, said
        return said if status else (out, read_json(card))

    run.settings = Reward(**settings)
    return run


def raw(folder, sequences):
    """The scores of sequences, one at a time."""
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    with torch.no_grad():
        return [model(input_ids=torch.tensor([ids])).logits.item() for ids in sequences]


def normalised(folder, sequences):
    mean, std = normalisation(folder)
    return [(score - mean) / std for score in raw(folder, sequences)]


def accuracy(scores):
    return sum(chosen > rejected for chosen, rejected in zip(scores[::2], scores[1::2], strict=True)) / len(scores) * 2


@pytest.mark.parametrize("by", ["weights", "mean", "min"])
def test_combined_reward_has_its_own_accuracy_and_the_common_scale(combine, models, dialogues, llamas, by):
    """On the samples of SFT 1 its mean is 0 and its standard deviation 1, as a single reward model's is."""
    out, card = combine(by)
    tokenizer = load_tokenizer(llamas[0])
    root = derive_seed(run_seed(1, "m"), "reward", 1)
    samples = samples_of(
        llamas[0], combine.settings, [render(tokenizer, pair[0][:1], True) for pair in dialogues], root
    )
    test = [render(tokenizer, dialogue) for pair in dialogues for dialogue in pair]
    if by == "weights":
        scores = raw(out, samples)
        assert normalisation(out) == pytest.approx((statistics.fmean(scores), statistics.stdev(scores)), abs=1e-4)
        assert card["accuracy"] == pytest.approx(accuracy(raw(out, test)))
    else:
        ensemble = read_ensemble(out)
        assert ensemble is not None and [model.resolve() for model in ensemble.models] == models
        assert ensemble.combine == by
        scores = ensemble.scores([normalised(model, samples) for model in models])
        assert (statistics.fmean(scores), statistics.stdev(scores)) == pytest.approx((0, 1), abs=1e-3)
        assert card["accuracy"] == pytest.approx(accuracy(combined(by, [normalised(m, test) for m in models])))
    assert read_ensemble(models[0]) is None


def test_warm_is_the_mean_of_the_weights(combine, models):
    from salsa.checkpoints.loading import load_reward

    out, _ = combine("weights")
    parts = [load_reward(model).state_dict() for model in models]
    for name, tensor in load_reward(out).state_dict().items():
        mean = torch.stack([part[name] for part in parts]).double().mean(0)
        assert torch.allclose(tensor.double(), mean, atol=1e-6)
    assert "score.weight" in parts[0]


def test_mean_and_minimum_of_scores():
    scores = [[1.0, -2.0], [3.0, 0.0], [-1.0, 5.0]]
    assert combined("mean", scores) == [1.0, 1.0]
    assert combined("min", scores) == [-1.0, -2.0]
    assert combined("min", scores[::-1]) == combined("min", scores)


def test_one_model_twice_is_refused(combine, models):
    said = combine("mean", [models[0], models[0]], status=1)
    assert "error: --reward: name two reward models or more, each once" in said


def test_missing_model_of_an_ensemble_is_named(combine, models, tmp_path):
    copies = [shutil.copytree(model, tmp_path / "copies" / model.name) for model in models[:2]]
    out, _ = combine("min", copies)
    shutil.rmtree(copies[1])
    with pytest.raises(UserError, match=r"ensemble\.json: no reward model \S*4: combine the reward models again"):
        read_ensemble(out)
