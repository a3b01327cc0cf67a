"""Stage `frontier`: each policy and the checkpoints that it kept, on common prompts."""

import json
import shutil
import sys

import pytest

from salsa.checkpoints.ensembles import Ensemble
from salsa.checkpoints.saving import KEPT
from salsa.runtime.command import main
from salsa.runtime.jsonl import read_jsonl, write_jsonl


@pytest.fixture
def frontier(tmp_path, llamas, reward_model, monkeypatch):
    """frontier(*options) -> exit status; its output is in tmp_path/out.jsonl."""
    write_jsonl(tmp_path / "prompts.jsonl", [{"prompt_id": str(i), "prompt": f"Say {i}."} for i in range(20)])
    section = {"prompts": {"path": str(tmp_path / "prompts.jsonl")}, "samples": 12, "max_new_tokens": 8}

    def run(*options: object) -> int:
        given = ["--sft", llamas[0], "--reward", reward_model, "--settings", json.dumps(section), "--seed", 1]
        arguments = [*given, *options, "--out", tmp_path / "out.jsonl"]
        monkeypatch.setattr(sys, "argv", ["eval", "frontier", *map(str, arguments)])
        return main("eval", {"frontier": ("eval.scoring.frontier", "")})

    return run


def test_policies_and_their_kept_checkpoints_are_measured(frontier, tmp_path, llamas, reward_model):
    """The kept checkpoint is SFT 1 itself, so it has its figures; the second reward model is the first."""
    policy = tmp_path / "policy"
    shutil.copytree(llamas[1], policy)
    shutil.copytree(llamas[0], policy / KEPT / "10")
    shutil.copytree(llamas[1], policy / KEPT / "9")
    assert frontier("--policy", f"ppo-s1={policy}", "--gold", "--held-out-reward", reward_model) == 0
    rows = read_jsonl(tmp_path / "out.jsonl")
    assert [(row.pop("policy"), row.pop("steps")) for row in rows] == [
        (None, None), ("ppo-s1", 9), ("ppo-s1", 10), ("ppo-s1", None)
    ]  # fmt: skip
    start, ninth, tenth, end = rows
    assert start == tenth and start["kl_sft"] == 0
    assert ninth == end and end["kl_sft"] > 0
    assert all(row["reward_held_out"] == row["reward"] and row["gold"] is not None for row in rows)


def test_policy_is_also_measured_by_the_reward_that_it_was_trained_against(
    frontier, tmp_path, llamas, reward_model, make_checkpoint, capsys
):
    """An ensemble of the reward model and another one; other policies were trained against --reward."""
    other = make_checkpoint(tmp_path / "other", seed=4, reward=True, scale=6)
    ensemble = tmp_path / "ensemble"
    ensemble.mkdir()
    Ensemble([reward_model, other], "mean", 0.0, 1.0).write(ensemble, ensemble)
    policies = ("--policy", f"ppo-s1={llamas[1]}", "--policy", f"mean-s1={llamas[1]}")
    assert frontier(*policies, "--trained-on", f"mean-s1={ensemble}", "--held-out-reward", other) == 0
    start, ppo, mean = read_jsonl(tmp_path / "out.jsonl")
    assert "reward_trained_on" not in start
    assert ppo["reward_trained_on"] == ppo["reward"] == mean["reward"]
    assert mean["reward_trained_on"] == pytest.approx((mean["reward"] + mean["reward_held_out"]) / 2, abs=1e-5)
    assert mean["reward_trained_on_se"] > 0
    assert frontier(*policies, "--trained-on", f"nobody={ensemble}") == 1
    assert "--trained-on: no policy nobody: name one that --policy gives" in capsys.readouterr().err
