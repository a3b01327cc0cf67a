"""Which data sets each training stage uses, with their length limits and seeds.

Both the stages and the stage `data`, which tokenizes beforehand, use these functions, so they agree.
"""

from pathlib import Path
from typing import Literal

from salsa.config.algorithms import Dpo, Grpo, Ppo, Rl, Rloo
from salsa.config.config import Config, algorithm_settings, for_model
from salsa.config.fields import Count, Section
from salsa.config.sections import Alpha, Reward, Sft, TrainingData
from salsa.runtime.seeds import derive_seed
from salsa.runtime.settings import load_named_settings

PREPARED = Path("data/prepared")
TRAINED_ON = ("sft.train", "reward.train", "ppo.prompts", "dpo.train")


class DataSet(Section):
    """A data set to tokenize. Longer rows than `max_length` are left out; demonstrations are truncated instead."""

    kind: Literal["demonstrations", "preferences", "prompts"]
    source: TrainingData
    max_length: Count
    seed: int


def _sets(
    stage: str, kind: Literal["demonstrations", "preferences"], max_length: int, seed: int, **sources: TrainingData
) -> dict[str, DataSet]:
    """The sets of a stage as {"stage.name": set}, each with its own seed."""
    return {
        f"{stage}.{name}": DataSet(kind=kind, source=source, max_length=max_length, seed=derive_seed(seed, stage, name))
        for name, source in sources.items()
    }


def sft_sets(settings: Sft, seed: int) -> dict[str, DataSet]:
    """Sets of the stage `sft`."""
    return _sets("sft", "demonstrations", settings.max_length, seed, train=settings.train, test=settings.test)


def reward_sets(settings: Reward, seed: int) -> dict[str, DataSet]:
    """Sets of the stage `reward`: pairs, and prompts for normalisation."""
    source = settings.normalisation_prompts.model_copy(update={"limit": settings.normalisation_samples})
    prompts = DataSet(
        kind="prompts",
        source=source,
        max_length=settings.max_length,
        seed=derive_seed(seed, "reward", "normalisation"),
    )
    pairs = _sets("reward", "preferences", settings.max_length, seed, train=settings.train, test=settings.test)
    return {**pairs, "reward.normalisation_prompts": prompts}


def rl_sets(settings: Rl, seed: int) -> dict[str, DataSet]:
    """Sets of the stage `align`."""
    limit = settings.max_prompt_length
    seed = derive_seed(seed, "ppo", "rows")
    return {"ppo.prompts": DataSet(kind="prompts", source=settings.prompts, max_length=limit, seed=seed)}


def dpo_sets(settings: Dpo, seed: int) -> dict[str, DataSet]:
    """Sets of the stage `dpo`."""
    return _sets("dpo", "preferences", settings.max_length, seed, train=settings.train)


def alpha_sets(settings: Alpha, test: TrainingData | None, room: int, context: int, seed: int) -> dict[str, DataSet]:
    """Sets of the stages `alpha` and `frontier`: prompts of at most `room` tokens; for `alpha` also SFT's test rows up
    to the context length.
    """
    source = settings.prompts.model_copy(update={"limit": settings.samples})
    prompts = DataSet(kind="prompts", source=source, max_length=room, seed=derive_seed(seed, "alpha", "prompts"))
    if test is None:
        return {"alpha.prompts": prompts}
    return {
        "alpha.prompts": prompts,
        "alpha.test": _sets("sft", "demonstrations", context, seed, test=test)["sft.test"],
    }


def all_sets(config: Config, model: str) -> dict[str, DataSet]:
    """All training and test sets of a model, named section.key; a set that differs for one method has its name."""
    adapted = for_model(config, model)
    sets = {**sft_sets(adapted.sft, adapted.seed), **reward_sets(adapted.reward, adapted.seed)}
    for name, method in adapted.methods.items():
        if method.algorithm == "none":
            continue
        match algorithm_settings(config, model, name):
            case Ppo() | Rloo() | Grpo() as rl:
                method_sets = rl_sets(rl, adapted.seed)
            case Dpo() as dpo:
                method_sets = dpo_sets(dpo, adapted.seed)
        for key, wanted in method_sets.items():
            if sets.setdefault(key, wanted) != wanted:
                sets[f"{key} ({name})"] = wanted
    return sets


def training_sets(config: Config) -> dict[str, DataSet]:
    """All sets that models are trained on, without test sets; each source once, with the model's name if it differs."""
    sets: dict[str, DataSet] = {}
    for model in config.models:
        for name, wanted in all_sets(config, model).items():
            if name.split()[0] in TRAINED_ON and sets.setdefault(name, wanted).source != wanted.source:
                sets[f"{name} of {model}"] = wanted
    return sets


def load_sets(text: str) -> dict[str, DataSet]:
    """Read the argument of --sets."""
    return load_named_settings(text, DataSet, "--sets")
