"""Which data the training stages take of their sections, and how long a row may be.

The stages and the stage `data`, which prepares them beforehand, both ask here, so that they mean the same.
"""

from pathlib import Path
from typing import Literal

from salsa.config.config import Config, algorithm_settings, for_model
from salsa.config.fields import Count, Section
from salsa.config.sections import Alpha, Dpo, Ppo, Reward, Sft, TrainingData
from salsa.runtime.errors import UserError
from salsa.runtime.seeds import derive_seed
from salsa.runtime.settings import load_settings

PREPARED = Path("data/prepared")
TRAINED_ON = ("sft.train", "reward.train", "ppo.prompts", "dpo.train")


class DataSet(Section):
    """What token_cache.py makes token ids of. Demonstrations are cut at `max_length`, all else is left out."""

    kind: Literal["demonstrations", "preferences", "prompts"]
    source: TrainingData
    max_length: Count
    seed: int


def _sets(
    stage: str, kind: Literal["demonstrations", "preferences"], max_length: int, seed: int, **sources: TrainingData
) -> dict[str, DataSet]:
    """A stage's sets by `stage.name`, each with a seed of its own."""
    return {
        f"{stage}.{name}": DataSet(kind=kind, source=source, max_length=max_length, seed=derive_seed(seed, stage, name))
        for name, source in sources.items()
    }


def sft_sets(settings: Sft, seed: int) -> dict[str, DataSet]:
    return _sets("sft", "demonstrations", settings.max_length, seed, train=settings.train, test=settings.test)


def reward_sets(settings: Reward, seed: int) -> dict[str, DataSet]:
    asked = settings.normalisation_prompts.model_copy(update={"limit": settings.normalisation_samples})
    prompts = DataSet(
        kind="prompts",
        source=asked,
        max_length=settings.max_length,
        seed=derive_seed(seed, "reward", "normalisation"),
    )
    pairs = _sets("reward", "preferences", settings.max_length, seed, train=settings.train, test=settings.test)
    return {**pairs, "reward.normalisation_prompts": prompts}


def ppo_sets(settings: Ppo, seed: int) -> dict[str, DataSet]:
    limit = settings.max_prompt_length
    seed = derive_seed(seed, "ppo", "rows")
    return {"ppo.prompts": DataSet(kind="prompts", source=settings.prompts, max_length=limit, seed=seed)}


def dpo_sets(settings: Dpo, seed: int) -> dict[str, DataSet]:
    return _sets("dpo", "preferences", settings.max_length, seed, train=settings.train)


def alpha_sets(settings: Alpha, test: TrainingData, room: int, context: int, seed: int) -> dict[str, DataSet]:
    """The prompts that leave room for an answer, and SFT's own test rows, as long as the context."""
    asked = settings.prompts.model_copy(update={"limit": settings.samples})
    prompts = DataSet(kind="prompts", source=asked, max_length=room, seed=derive_seed(seed, "alpha", "prompts"))
    return {
        "alpha.prompts": prompts,
        "alpha.test": _sets("sft", "demonstrations", context, seed, test=test)["sft.test"],
    }


def all_sets(config: Config, model: str) -> dict[str, DataSet]:
    """Everything that a model trains on and holds out, by the section and key; a method's own in brackets."""
    own = for_model(config, model)
    sets = {**sft_sets(own.sft, own.seed), **reward_sets(own.reward, own.seed)}
    for name, method in own.methods.items():
        if method.algorithm == "none":
            continue
        match algorithm_settings(config, model, name):
            case Ppo() as ppo:
                found = ppo_sets(ppo, own.seed)
            case Dpo() as dpo:
                found = dpo_sets(dpo, own.seed)
        for key, wanted in found.items():
            if sets.setdefault(key, wanted) != wanted:
                sets[f"{key} ({name})"] = wanted
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
