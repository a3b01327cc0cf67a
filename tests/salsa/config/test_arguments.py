"""--config fills in what a training stage's command leaves out."""

import argparse
import json
from pathlib import Path

import pytest
import yaml

from salsa.runtime.command import parse
from salsa.runtime.errors import UserError

ROOT = Path(__file__).parents[3]
REPLICATES = {"r1": {"sft": {"sft-1": 1, "sft-2": 2}}, "r2": {"sft": {"sft-1": 4, "sft-2": 3}, "reward_seed": 5}}


def completed(folder: Path, *words: str) -> argparse.Namespace:
    """The arguments of a run of SALSA in the smoke grid with two replicates."""
    config = yaml.safe_load((ROOT / "config/smoke.yaml").read_text()) | {"replicates": REPLICATES}
    (folder / "mine.yaml").write_text(yaml.safe_dump(config))
    given = ["--config", str(folder / "mine.yaml"), "--method", "salsa", "--out", str(folder / "policy"), *words]
    return parse("salsa.alignment.align", given)


def test_replicate_chooses_the_checkpoints_and_the_draws(tmp_path):
    first, second = completed(tmp_path), completed(tmp_path, "--replicate", "r2")
    folder = Path("checkpoints/smoke")
    assert (first.init, first.sft, first.run) == (*[folder / "sft/llama-mini/1"] * 2, "llama-mini-r1")
    assert (second.init, second.sft, second.run) == (*[folder / "sft/llama-mini/4"] * 2, "llama-mini-r2")
    assert second.reference == [folder / "soup/llama-mini/sft-3@0.5+sft-4@0.5"]
    assert (first.reward, second.reward) == (folder / "reward/llama-mini", folder / "reward/llama-mini-r2")


def test_what_is_given_stays(tmp_path):
    given = completed(tmp_path, "--replicate", "r2", "--run", "mine", "--init", "elsewhere")
    assert (given.run, given.init) == ("mine", Path("elsewhere"))


def test_unknown_replicate_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"^--replicate r3: the config has r1, r2: name one of these$"):
        completed(tmp_path, "--replicate", "r3")


def test_algorithm_and_reward_come_with_the_method(tmp_path):
    (tmp_path / "more.yaml").write_text(
        "methods: {salsa-rloo: {algorithm: rloo, init: sft-1, reference: sft-2, reward: {models: 2, combine: min}}}\n"
        "rloo: {responses_per_prompt: 2}\n"
    )
    words = [
        "--config",
        str(ROOT / "config/smoke.yaml"),
        str(tmp_path / "more.yaml"),
        "--out",
        str(tmp_path / "policy"),
    ]
    first = parse("salsa.alignment.align", words)
    assert first.algorithm == "ppo" and "value_learning_rate" in first.settings
    rloo = parse("salsa.alignment.align", [*words, "--method", "salsa-rloo"])
    assert rloo.algorithm == "rloo" and json.loads(rloo.settings)["responses_per_prompt"] == 2
    assert [str(one.reward).rpartition("/")[2] for one in (first, rloo)] == ["llama-mini", "llama-mini.min-2"]
    assert rloo.settings == parse("salsa.alignment.align", [*words, "--algorithm", "rloo"]).settings
    with pytest.raises(UserError, match=r"^--method ppo: the config has salsa-rloo: name one of these$"):
        parse("salsa.alignment.align", [*words, "--algorithm", "rloo", "--method", "ppo"])
