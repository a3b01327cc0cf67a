"""No stage reads or saves a checkpoint with a NaN or an infinity."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Trainer

from eval.generation.engines import load_engine
from salsa.checkpoints import floats
from salsa.checkpoints.loading import load_causal, load_reward, load_tokenizer
from salsa.checkpoints.saving import check_saving, save
from salsa.checkpoints.shards import read_tensors
from salsa.config.sections import GenerateSettings
from salsa.runtime.errors import UserError

NAME = "model.layers.0.mlp.up_proj.weight"


def spoil(folder: Path, value: float = float("nan")) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors[NAME][1, 2] = value
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_broken_checkpoint_is_not_loaded(tmp_path, llamas, reward_model, value):
    for source, load in ((llamas[0], load_causal), (reward_model, load_reward)):
        broken = shutil.copytree(source, tmp_path / source.name)
        load(broken)
        spoil(broken, value)
        with pytest.raises(UserError, match=f"{source.name}: parameter {NAME} holds NaN or infinity: the checkpoint"):
            load(broken)


def test_diverged_model_is_not_saved(tmp_path, llamas):
    model = load_causal(llamas[0])
    with torch.no_grad():
        model.get_parameter(NAME)[0, 0] = 3e38
    save(model, load_tokenizer(llamas[0]), tmp_path / "whole", "bfloat16")
    with torch.no_grad():
        model.float().get_parameter(NAME)[0, 0] = float("nan")
    with pytest.raises(UserError, match=f"training diverged: parameter {NAME} holds NaN or infinity"):
        save(model, load_tokenizer(llamas[0]), tmp_path / "broken", "float32")
    assert not (tmp_path / "broken").exists()


def test_diverged_sft_leaves_no_checkpoint(command, tmp_path, llamas):
    rows = [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b c d"}]}] * 4
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {"learning_rate": 1e38, "epochs": 2, "batch_size": 2, "max_length": 64}
    settings |= {name: {"path": str(tmp_path / "rows.jsonl")} for name in ("train", "test")}
    options = ("--base", llamas[0], "--settings", json.dumps(settings), "--seed", 1, "--sft-seed", 1)
    status, said = command("salsa", "sft", *options, "--out", tmp_path / "out")
    assert status == 1 and "training diverged: parameter" in said
    assert not (tmp_path / "out").exists()


def test_vllm_does_not_load_a_broken_checkpoint(tmp_path, llamas):
    broken = shutil.copytree(llamas[0], tmp_path / "broken")
    spoil(broken)
    settings = GenerateSettings(engine="vllm")
    with pytest.raises(UserError, match=f"broken: tensor {NAME} holds nan"):
        load_engine(broken, load_tokenizer(broken), settings)


def test_broken_checkpoint_is_not_perturbed(command, tmp_path, llamas):
    broken = shutil.copytree(llamas[1], tmp_path / "broken")
    spoil(broken)
    options = ("--of", llamas[0], "--like", broken, "--seed", 1, "--draw", 1, "--out", tmp_path / "out")
    status, said = command("salsa", "perturb", *options)
    assert status == 1 and f"broken: tensor {NAME} holds nan" in said
    assert not (tmp_path / "out").exists()


def test_broken_base_is_refused_and_unsaveable_generation_config_is_repaired(command, tmp_path, llamas):
    """Llama-2's first generation config had a temperature with sampling off."""
    base = shutil.copytree(llamas[0], tmp_path / "base")
    said = {"do_sample": False, "temperature": 0.9, "top_p": 0.6, "eos_token_id": 2, "pad_token_id": 0}
    (base / "generation_config.json").write_text(json.dumps(said))
    pad = load_tokenizer(base).pad_token
    local = {"path": str(base), "chat_template": str(base / "chat_template.jinja"), "pad_token": pad}
    options = ("--model", "m", "--seed", 1, "--settings", json.dumps({"model": {"local": local}, "base": None}))
    assert command("salsa", "base", *options, "--out", tmp_path / "adopted") == (0, "")
    kept = json.loads((tmp_path / "adopted/generation_config.json").read_text())
    assert kept == {"eos_token_id": 2, "pad_token_id": 0}
    for folder in (tmp_path / "adopted", base):
        save(load_causal(folder), load_tokenizer(folder), tmp_path / "again", "float32")
    spoil(base)
    status, said = command("salsa", "base", *options, "--out", tmp_path / "second")
    assert status == 1 and f"{base}: tensor {NAME} holds nan" in said
    assert not (tmp_path / "second").exists()


def test_first_broken_tensor_is_named(tmp_path):
    values = torch.arange(200_000, dtype=torch.float32)
    values[[70_001, 150_000]] = torch.tensor([float("inf"), float("nan")])
    save_file({"a": values, "ids": torch.arange(3)}, tmp_path / "model.safetensors")
    found = read_tensors(tmp_path)
    floats.check_finite(found["ids"], tmp_path)
    with pytest.raises(UserError, match="tensor a holds inf .element 70001, in model.safetensors"):
        floats.check_finite(found["a"], tmp_path)


def test_saving_is_tried_before_training(tmp_path, llamas):
    """A generation_config.json like Llama-2's first: a temperature with sampling off."""
    model, tokenizer = load_causal(llamas[0]), load_tokenizer(llamas[0])
    check_saving(model, tokenizer, tmp_path, "float32")
    assert list(tmp_path.iterdir()) == []
    model.generation_config.temperature = 0.9
    with pytest.raises(UserError, match="a model trained from it could not be saved .GenerationConfig is invalid"):
        check_saving(model, tokenizer, tmp_path, "float32")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stage", ["sft", "reward"])
def test_disk_space_is_checked_before_training(stage, command, tmp_path, llamas, monkeypatch):
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b c d"}]
    row = {"messages": turns, "chosen": turns, "rejected": [turns[0], {"role": "assistant", "content": "e"}]}
    (tmp_path / "rows.jsonl").write_text(f"{json.dumps(row)}\n" * 4)
    settings = {"learning_rate": 1e-4, "epochs": 1, "batch_size": 2, "max_length": 64}
    settings |= {name: {"path": str(tmp_path / "rows.jsonl")} for name in ("train", "test")}
    more = {
        "sft": ({}, ("--base", llamas[0], "--sft-seed", 1)),
        "reward": (
            {"normalisation_prompts": settings["train"], "normalisation_samples": 4, "max_new_tokens": 4},
            ("--sft", llamas[0], "--card", tmp_path / "card.json"),
        ),
    }[stage]
    full = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr("salsa.checkpoints.saving.shutil.disk_usage", lambda folder: full)
    monkeypatch.setattr(Trainer, "train", lambda self: pytest.fail("it is trained"))
    options = ("--settings", json.dumps(settings | more[0]), "--seed", 1, *more[1], "--out", tmp_path / "out")
    status, said = command("salsa", stage, *options)
    assert status == 1 and re.search(r"the trained model needs \S+ GB, 1e-06 GB are free: make room\n", said), said
    assert not (tmp_path / "out").exists()
