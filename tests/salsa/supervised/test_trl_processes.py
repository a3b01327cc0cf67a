"""SFT, the reward model and DPO with two processes give what one process gives, within the rounding of sums."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from salsa.__main__ import COMMANDS
from salsa.config.sections import Optimisation
from salsa.runtime.command import run_command
from salsa.runtime.errors import UserError
from salsa.runtime.jsonl import read_jsonl, write_jsonl
from salsa.runtime.log import log
from salsa.supervised.trl_trainers import micro_batches
from tests.salsa.launched import PROCESSES, ended, launching

STAGES = ("sft", "reward", "dpo")
# Runs: each stage, and DPO on 15 pairs, of which the last three form a short batch.
SHORT = {"epochs": 1, "schedule": "constant", "warmup_ratio": 0}
RUNS = {name: (name, {}) for name in STAGES} | {"short": ("dpo", SHORT)}
LORA = {"lora": ("dpo", {"lora": {"rank": 2, "alpha": 8}})}  # not with FSDP2
OPTIMISATION = {"batch_size": 4, "micro_batch_size": 2, "max_length": 128, "learning_rate": 1e-3, "epochs": 2}
ANSWERS = ["The grass is green.", "It is seven.", "hi", "Monday, Tuesday, Wednesday."]


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> dict[str, str]:
    """Files of 16 dialogues and 16 pairs, so that every batch is full."""
    folder = tmp_path_factory.mktemp("rows")
    found: dict[str, list[dict]] = {"dialogues": [], "pairs": [], "prompts": []}
    for i in range(16):
        asked = {"role": "user", "content": f"Name the colour of grass {i}."}
        better, worse = ({"role": "assistant", "content": ANSWERS[(i + k) % 4]} for k in (0, 1))
        found["dialogues"].append({"messages": [asked, better]})
        found["prompts"].append({"prompt_id": str(i), "prompt": asked["content"]})
        scores = {"score_chosen": 2, "score_rejected": 1}
        found["pairs"].append({"chosen": [asked, better], "rejected": [asked, worse], **scores})
    for name, part in found.items():
        write_jsonl(folder / f"{name}.jsonl", part)
    return {name: str(folder / f"{name}.jsonl") for name in found}


def arguments_of(run: str, llamas, rows, prepared, folder: Path) -> list[object]:
    """A run's stage and its arguments; it writes folder/run."""
    name, keys = (RUNS | LORA)[run]
    dialogues, pairs, prompts = ({"path": rows[kind]} for kind in ("dialogues", "pairs", "prompts"))
    if run == "short":
        pairs["limit"] = 15
    arguments = {
        "sft": ["--base", llamas[0], "--sft-seed", 1],
        "reward": ["--sft", llamas[0], "--card", folder / f"{run}.json"],
        "dpo": ["--init", llamas[0], "--reference", llamas[1]],
    }
    settings = {
        "sft": {"train": dialogues, "test": dialogues},
        "reward": {"train": pairs, "test": pairs, "normalisation_prompts": prompts, "max_new_tokens": 4},
        "dpo": {"train": pairs, "beta": 0.5},
    }
    given = json.dumps({**OPTIMISATION, **settings[name], **keys})
    return [name, *arguments[name], "--settings", given, "--seed", 1, "--prepared", prepared, "--out", folder / run]


def figures(folder: Path) -> dict:
    """A stage's training figures: in run.json, or one line per step."""
    record = json.loads((folder / "run.json").read_text())
    lines = folder.with_suffix(".jsonl")
    steps = enumerate(read_jsonl(lines)) if lines.exists() else ()
    said = {f"{name} {step}": value for step, row in steps for name, value in row.items()}
    said |= record.get("card", {}) | {name: record[name] for name in ("test_loss", "steps") if name in record}
    return {name: value for name, value in said.items() if value is not None}


@pytest.fixture(scope="module")
def trained_by_one(llamas, rows, prepared, tmp_path_factory):
    """The outputs of all runs with one process, this one."""
    folder = tmp_path_factory.mktemp("one")
    for run in RUNS | LORA:
        name, *words = map(str, arguments_of(run, llamas, rows, prepared, folder))
        assert run_command("salsa", COMMANDS[name][0], "", words) == 0
    return folder


@pytest.fixture(scope="module", params=["ddp.yaml", "fsdp2.yaml"])
def trained_by_two(request, llamas, rows, prepared, tmp_path_factory):
    """The outputs of all runs with two processes, and what these said."""
    folder = tmp_path_factory.mktemp("two")
    words: list[object] = []
    for run in RUNS | (LORA if request.param == "ddp.yaml" else {}):
        words += [*(["++"] if words else []), *arguments_of(run, llamas, rows, prepared, folder)]
    with launching(folder) as launch:
        return folder, ended(launch(request.param, *words))


@pytest.mark.parametrize("name", STAGES)
def test_two_processes_train_like_one(trained_by_one, trained_by_two, name):
    folder, (main, other) = trained_by_two
    assert f" salsa: {name} " in main and f" salsa: {name} " not in other, "only the main process logs progress"
    one, two = trained_by_one / name, folder / name
    assert figures(two) == pytest.approx(figures(one), rel=1e-3, abs=1e-4, nan_ok=True)
    assert json.loads((two / "run.json").read_text())["processes"] == PROCESSES
    weights, expected = (load_file(run / "model.safetensors") for run in (two, one))
    assert weights.keys() == expected.keys()
    for key, weight in weights.items():
        assert torch.allclose(weight, expected[key], rtol=0, atol=2e-5), key


def test_reference_scores_each_pair_once_with_a_short_last_batch(trained_by_one, trained_by_two):
    """Before the short batch, at the end, the figures equal one process's."""
    found, expected = (read_jsonl(folder / "short.jsonl") for folder in (trained_by_two[0], trained_by_one))
    assert len(found) == len(expected) == 4
    for row, other in zip(found[:3], expected[:3], strict=True):
        assert row == pytest.approx(other, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("trained_by_two", ["ddp.yaml"], indirect=True)
def test_two_processes_train_an_adapter_like_one(trained_by_one, trained_by_two):
    one, two = trained_by_one / "lora", trained_by_two[0] / "lora"
    assert figures(two) == pytest.approx(figures(one), rel=1e-3, abs=1e-4)
    weights, expected = (load_file(run / "adapter_model.safetensors") for run in (two, one))
    assert weights.keys() == expected.keys()
    for key, weight in weights.items():
        assert torch.allclose(weight, expected[key], rtol=0, atol=2e-5), key


def test_lora_is_refused_under_fsdp2_in_one_line(command, llamas, rows, prepared, tmp_path, monkeypatch):
    monkeypatch.setattr("salsa.devices.processes.use_fsdp2", lambda: True)
    status, said = command("salsa", *arguments_of("lora", llamas, rows, prepared, tmp_path))
    assert status == 1 and "lora: FSDP2 shards weights that train" in said


@pytest.mark.parametrize("name", STAGES)
def test_only_the_main_process_writes(command, name, llamas, rows, prepared, tmp_path, monkeypatch):
    monkeypatch.setattr("salsa.devices.processes.is_main", lambda: False)
    monkeypatch.setattr(log, "level", log.level)  # which it lowers
    assert command("salsa", *arguments_of(name, llamas, rows, prepared, tmp_path))[0] == 0
    assert list(tmp_path.iterdir()) == []


def test_batch_is_divided_among_the_processes():
    def passes(batch: int, micro: int | None, count: int) -> tuple[int, int]:
        given = {"batch_size": batch, "micro_batch_size": micro, "learning_rate": 1, "max_length": 1}
        return micro_batches(Optimisation.model_validate(given), count)

    assert passes(128, 4, 1) == (4, 32)
    assert passes(128, 4, 8) == (4, 4)
    assert passes(12, 6, 4) == (3, 1), "fewer rows per process than a micro-batch may hold"
    assert passes(12, 4, 2) == (3, 2), "micro-batches divide a process's rows"
    assert passes(16, None, 2) == (8, 1)
    with pytest.raises(UserError, match="batch_size: 12 is not a multiple of the 8 processes"):
        passes(12, 4, 8)


def test_deepspeed_is_refused_in_one_line(monkeypatch):
    monkeypatch.setattr("salsa.devices.processes.load_models_unsharded", lambda: None)
    from salsa.devices import processes
    from salsa.supervised.trl_trainers import distributed

    class Launched:
        distributed_type = "DEEPSPEED"

    monkeypatch.setattr(processes, "accelerator", lambda: Launched)
    with pytest.raises(UserError, match="sft: only align supports DeepSpeed"), distributed("sft"):
        pass
