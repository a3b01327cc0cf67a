"""Stage `frontier`: each policy and the checkpoints that it kept, on common prompts."""

import json
import shutil
import sys

import pytest

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
