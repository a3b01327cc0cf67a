"""A small run for the tests here."""

from pathlib import Path
from typing import Any

from salsa.alignment.training import Algorithm, make_algorithm
from salsa.config.algorithms import Rl
from salsa.config.references import Fixed
from salsa.rollouts.models import Models, load_models, loader_for

COMMANDS = {"align": ("salsa.alignment.align", "")}


# For algorithms without a value model.
GROUPED = {"value_learning_rate": None, "responses_per_prompt": 4}


def settings(prompts_file, **keys) -> dict:
    """Settings of a run; a key that is None is left out."""
    given = {
        "prompts": {"path": str(prompts_file)},
        "steps": 2,
        "rollout_batch_size": 8,
        "train_batch_size": 4,
        "epochs": 2,
        "learning_rate": 1e-3,
        "value_learning_rate": 1e-3,
        "beta": 0.1,
        "max_prompt_length": 64,
        "max_new_tokens": 12,
        **keys,
    }
    return {key: value for key, value in given.items() if value is not None}


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def load_run(init: Path, reference: Path, reward: Path, config: Rl) -> tuple[Models, Algorithm[Any, Any]]:
    """Models and algorithm of a run with a fixed reference, as the stage loads them; SFT 1 is `init`."""
    loader = loader_for(config, 1)
    models = load_models(loader, init, [reference], Fixed(), init, reward)
    return models, make_algorithm(models, config, lambda: loader.value(reward))
