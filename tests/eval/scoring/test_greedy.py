"""Greedy soups: the choice on known rewards, and the stage on tiny checkpoints."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from eval.scoring.greedy import choose
from salsa.runtime.jsonl import write_jsonl

A, B, C = (Path(name) for name in "abc")


@pytest.mark.parametrize(
    ("soups", "chosen"),
    [
        ({(B, A): 2.0, (B, A, C): 1.5}, (B, A)),  # the last one lowers the reward
        ({(B, A): 0.5, (B, C): 1.0}, (B, C)),  # equal is enough
        ({(B, A): 0.5, (B, C): 0.9}, (B,)),
    ],
)
def test_models_stay_that_do_not_lower_the_reward(soups, chosen):
    rewards = {(A,): 0.8, (B,): 1.0, (C,): 0.1} | soups
    found, trials = choose([A, B, C], rewards.__getitem__)
    assert found == chosen
    assert [trial.models for trial in trials[:4]] == [(A,), (B,), (C,), (B, A)]
    assert [trial.kept for trial in trials[:3]] == [False, True, False]
    assert all(trial.reward == rewards[trial.models] for trial in trials)


def test_stage_writes_the_soup_and_its_trials(command, tmp_path, llamas, reward_model):
    write_jsonl(tmp_path / "prompts.jsonl", [{"prompt_id": str(i), "prompt": f"Say {i}."} for i in range(12)])
    section = {"prompts": {"path": str(tmp_path / "prompts.jsonl")}, "samples": 12, "max_new_tokens": 8}
    models = [part for folder in llamas for part in ("--model", folder)]
    options = ["--reward", reward_model, "--settings", json.dumps(section), "--seed", 1, "--out", tmp_path / "soup"]
    status, said = command("eval", "greedy", *models, *options)
    assert status == 0, said
    record = json.loads((tmp_path / "soup/run.json").read_text())
    chosen, trials = [Path(name) for name in record["models"]], record["trials"]
    best = max(trials[: len(llamas)], key=lambda trial: trial["reward"])
    assert best["kept"] and [str(chosen[0])] == best["models"]
    assert len(trials) == 2 * len(llamas) - 1
    weights = [load_file(folder / "model.safetensors") for folder in chosen]
    for name, tensor in load_file(tmp_path / "soup/model.safetensors").items():
        torch.testing.assert_close(tensor, sum(part[name] for part in weights) / len(weights))
