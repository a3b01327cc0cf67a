"""Which data the training stages take of their sections, and how long a row may be.

The stages and the stage `data`, which prepares them beforehand, both ask here, so that they mean the same.
"""

from pathlib import Path
from typing import Literal

from salsa.config import Config, algorithm_settings, model_settings
from salsa.errors import UserError
from salsa.fields import Count, Section
from salsa.sections import DataSource, Dpo, Ppo, Reward, Sft
from salsa.seeds import derive_seed
from salsa.stage import load_settings

PREPARED = Path("data/prepared")
TRAINED_ON = ("sft.train", "reward.train", "ppo.prompts", "dpo.train")


class DataSet(Section):
    """What salsa/prepared.py makes token ids of. Demonstrations are cut at `max_length`, all else is left out."""

    kind: Literal["demonstrations", "preferences", "prompts"]
    source: DataSource
    max_length: Count
    seed: int


def sft_sets(settings: Sft, seed: int) -> dict[str, DataSet]:
    return {
        f"sft.{name}": DataSet(
            kind="demonstrations",
            source=source,
            max_length=settings.max_length,
            seed=derive_seed(seed, "sft", name),
        )
        for name, source in (("train", settings.train), ("test", settings.test))
    }


def reward_sets(settings: Reward, seed: int) -> dict[str, DataSet]:
    sets = {
        f"reward.{name}": DataSet(
            kind="preferences",
            source=source,
            max_length=settings.max_length,
            seed=derive_seed(seed, "reward", name),
        )
        for name, source in (("train", settings.train), ("test", settings.test))
    }
    asked = settings.normalisation_prompts.model_copy(update={"limit": settings.normalisation_samples})
    sets["reward.normalisation_prompts"] = DataSet(
        kind="prompts",
        source=asked,
        max_length=settings.max_length,
        seed=derive_seed(seed, "reward", "normalisation"),
    )
    return sets


def ppo_set(settings: Ppo, seed: int) -> DataSet:
    return DataSet(
        kind="prompts",
        source=settings.prompts,
        max_length=settings.max_prompt_length,
        seed=derive_seed(seed, "ppo", "rows"),
    )


def dpo_set(settings: Dpo, seed: int) -> DataSet:
    return DataSet(
        kind="preferences",
        source=settings.train,
        max_length=settings.max_length,
        seed=derive_seed(seed, "dpo", "train"),
    )


def all_sets(config: Config, model: str) -> dict[str, DataSet]:
    """Everything that a model trains on and holds out, by the section and key; a method's own in brackets."""
    sets = sft_sets(model_settings(config, model, config.sft), config.seed)
    sets |= reward_sets(model_settings(config, model, config.reward), config.seed)
    for name, method in config.methods.items():
        if method.algorithm == "none":
            continue
        match algorithm_settings(config, model, name):
            case Ppo() as ppo:
                key, found = "ppo.prompts", ppo_set(ppo, config.seed)
            case Dpo() as dpo:
                key, found = "dpo.train", dpo_set(dpo, config.seed)
        if sets.setdefault(key, found) != found:
            sets[f"{key} ({name})"] = found
    return sets


def training_sets(config: Config) -> dict[str, DataSet]:
    """The sets that models learn from, each source once; where a model has another one, with its name."""
    found: dict[str, DataSet] = {}
    for model in config.models:
        for name, wanted in all_sets(config, model).items():
            if name.split()[0] in TRAINED_ON and found.setdefault(name, wanted).source != wanted.source:
                found[f"{name} of {model}"] = wanted
    return found


def parse_sets(texts: list[str]) -> dict[str, DataSet]:
    """NAME=JSON arguments of the stages that take data sets."""
    sets = {}
    for text in texts:
        name, found, settings = text.partition("=")
        if not found:
            raise UserError(f"--set {text}: write it as NAME=JSON")
        sets[name] = load_settings(settings, DataSet)
    return sets
