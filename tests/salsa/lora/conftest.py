"""A base checkpoint, and LoRA checkpoints on it with random adapters."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from salsa.checkpoints.loading import load_tokenizer
from salsa.config.sections import Lora
from salsa.lora.checkpoint import TRAINED, load_for_training, save_trained
from salsa.lora.layers import parameters_of


@pytest.fixture
def base(make_checkpoint, tmp_path) -> Path:
    return make_checkpoint(tmp_path / "base", seed=1, scale=6)


@pytest.fixture
def make_adapter(base, tmp_path) -> Callable[..., Path]:
    """make_adapter(name, seed, start=base, reward=False, **lora): a checkpoint whose last adapter is random."""

    def make(name: str, seed: int, start: Path = base, reward: bool = False, **keys) -> Path:
        auto = AutoModelForSequenceClassification if reward else AutoModelForCausalLM
        torch.manual_seed(seed)
        model = load_for_training(auto, start, Lora(**{"rank": 3, "alpha": 5, **keys}), "float32", seed)
        with torch.no_grad():
            for parameter in parameters_of(model, TRAINED):
                parameter.copy_(0.1 * torch.randn(parameter.shape))
        folder = tmp_path / name
        folder.mkdir()
        save_trained(model, load_tokenizer(base), folder, "float32")
        return folder

    return make
