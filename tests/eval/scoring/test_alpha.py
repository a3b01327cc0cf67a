import json
import math
import sys

import pytest
import torch

from eval.scoring.alpha import parse_checkpoints, parse_source
from eval.scoring.probe import Probe, mean_and_error
from salsa.checkpoints.loading import load_causal, load_reward, load_tokenizer
from salsa.config.sections import Alpha, TrainingData
from salsa.models.scoring import rewards
from salsa.runtime.command import main
from salsa.runtime.errors import UserError
from salsa.runtime.jsonl import read_jsonl, write_jsonl
from salsa.soups.soup import soup


def test_command_measures_every_point(tmp_path, llamas, reward_model, monkeypatch):
    """Alpha 0 is SFT 1, so its KL is 0; a copy of it under another alpha has the same figures."""
    write_jsonl(tmp_path / "prompts.jsonl", [{"prompt_id": str(i), "prompt": f"Say {i}."} for i in range(20)])
    talk = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "The grass is green."}]
    write_jsonl(tmp_path / "test.jsonl", [{"messages": talk}, {"messages": talk * 2}])
    for name, weights in {"half": (0.5, 0.5), "same": (1.0, 0.0)}.items():
        (tmp_path / name).mkdir()
        soup(dict(zip(llamas, weights, strict=True)), tmp_path / name)
    points = {0: llamas[0], 0.25: tmp_path / "same", 0.5: tmp_path / "half", 1: llamas[1]}
    section = {"prompts": {"path": str(tmp_path / "prompts.jsonl")}, "samples": 12, "max_new_tokens": 8}
    arguments = (
        f"eval alpha --sft {llamas[0]} --reward {reward_model} --test {tmp_path / 'test.jsonl'} --gold --seed 1".split()
    )
    arguments += ["--out", str(tmp_path / "a.jsonl"), "--settings", json.dumps(section)]
    for alpha, folder in points.items():
        arguments += ["--checkpoint", f"{alpha}={folder}"]
    monkeypatch.setattr(sys, "argv", arguments)
    assert main("eval", {"alpha": ("eval.scoring.alpha", "")}) == 0
    rows = read_jsonl(tmp_path / "a.jsonl")
    assert [row["alpha"] for row in rows] == [0, 0.25, 0.5, 1]
    assert all(
        row["samples"] == 12 and row["reward_se"] > 0 and row["sft_loss"] > 0 and 1 <= row["tokens"] <= 8
        for row in rows
    )
    assert rows[0]["kl_sft"] == 0 and rows[2]["kl_sft"] > 0.01 and rows[3]["kl_sft"] > 0.01
    figures = ("reward", "sft_loss", "gold", "kl_sft")
    assert [rows[0][key] for key in figures] == pytest.approx([rows[1][key] for key in figures])
    assert rows[0]["reward"] != rows[2]["reward"]


def test_sft_loss_covers_the_assistants_tokens_and_eos(tmp_path, llamas, reward_model, prepared):
    """By hand: the template's text split at its marks, and the model's own log-probabilities."""
    talk = [{"role": "user", "content": "Say hello."}, {"role": "assistant", "content": "hello"}] * 2
    write_jsonl(tmp_path / "test.jsonl", [{"messages": talk}])
    write_jsonl(tmp_path / "prompts.jsonl", [{"prompt": "hi"}, {"prompt": "word " * 300}])
    settings = Alpha(prompts=TrainingData(path=str(tmp_path / "prompts.jsonl")), samples=2, max_new_tokens=8)
    test = TrainingData(path=str(tmp_path / "test.jsonl"))
    probe = Probe(llamas[0], {"reward": reward_model}, settings, test, False, 1, prepared)
    assert (probe.counts["alpha.prompts"]["used"], probe.counts["alpha.prompts"]["too_long"]) == (1, 1)
    tokenizer, [ids], [mask] = load_tokenizer(llamas[0]), probe.demonstrations, probe.masks
    marked = [i for i, mark in enumerate(mask) if mark]
    assert tokenizer.decode([ids[i] for i in marked]) == " hello<|end|> hello<|end|>"
    with torch.no_grad():
        found = load_causal(llamas[0])(torch.tensor([ids])).logits[0].log_softmax(-1)
    expected = -sum(found[i - 1, ids[i]] for i in marked) / len(marked)
    assert probe.measure(llamas[0])["sft_loss"] == pytest.approx(expected.item(), rel=1e-5)
    short = settings.model_copy(update={"max_new_tokens": 256})
    with pytest.raises(UserError, match=r"alpha\.max_new_tokens: 256 leaves no room in a context of 256: lower it"):
        Probe(llamas[0], {"reward": reward_model}, short, test, False, 1, prepared)


def test_mean_and_error():
    assert mean_and_error([1.0, 3.0]) == (2.0, 1.0)
    assert math.isnan(mean_and_error([1.0])[1])


def test_arguments():
    assert list(parse_checkpoints(["1=b", "0=a/x"])) == [0.0, 1.0]
    for wrong in ("a", "x=a", "1="):
        with pytest.raises(UserError, match="--checkpoint"):
            parse_checkpoints([wrong])
    assert parse_source("t.jsonl").path == "t.jsonl"
    assert parse_source('{"path": "u.jsonl", "limit": 3}').limit == 3


def test_empty_batch_of_rewards(reward_model):
    assert rewards(load_reward(reward_model), [], []) == []
