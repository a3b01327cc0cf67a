"""The stage `warp`: its policy is the average on the arc, and its metrics are those of all runs."""

import pytest
import torch

from salsa.runtime.jsonl import read_jsonl, write_jsonl
from salsa.soups.soup import soup
from tests.salsa.soups.test_soup import checkpoint, same_bits, tensors_of


@pytest.fixture
def round_of_two(tmp_path):
    """The start of a round and its two runs."""
    return [checkpoint(tmp_path / str(seed), seed, torch.float32) for seed in range(3)]


def metrics(folder, name: str, rewards: list[float], **further):
    rows = [
        {"step": step, "episodes": 8 * (step + 1), "reward": reward, **further} for step, reward in enumerate(rewards)
    ]
    write_jsonl(folder / f"{name}.jsonl", rows)
    return folder / f"{name}.jsonl"


def test_policy_and_metrics(command, tmp_path, round_of_two):
    start, *runs = round_of_two
    files = [
        metrics(tmp_path, "1.1", [0.0, 1.0], gold=None),
        metrics(tmp_path, "1.2", [2.0, 5.0], gold=None),
        metrics(tmp_path, "2.1", [4.0, 4.0], gold=0.5),
        metrics(tmp_path, "2.2", [6.0, 8.0], gold=1.0),
    ]
    ingredients = [part for run in runs for part in ("--ingredient", f"{run}=0.4")]
    options = ["--ingredient", f"{start}=0.2", "--slerp-from", start, "--runs", 2, "--metrics-of", *files]
    out = ["--out", tmp_path / "policy", "--metrics", tmp_path / "policy.jsonl"]
    status, said = command("salsa", "warp", *ingredients, *options, *out)
    assert status == 0, said
    (tmp_path / "expected").mkdir()
    soup(dict.fromkeys(runs, 0.4) | {start: 0.2}, tmp_path / "expected", slerp_from=start)
    expected = tensors_of(tmp_path / "expected")
    assert all(same_bits(tensor, expected[name]) for name, tensor in tensors_of(tmp_path / "policy").items())
    assert read_jsonl(tmp_path / "policy.jsonl") == [
        {"step": 0, "episodes": 16, "reward": 1.0, "gold": None},
        {"step": 1, "episodes": 32, "reward": 3.0, "gold": None},
        {"step": 2, "episodes": 48, "reward": 5.0, "gold": 0.75},
        {"step": 3, "episodes": 64, "reward": 6.0, "gold": 0.75},
    ]
    status, said = command("salsa", "warp", *ingredients, *options[:-1], *out)
    assert status == 1 and "--metrics-of: 3 files are not whole rounds of 2 runs: name all" in said
