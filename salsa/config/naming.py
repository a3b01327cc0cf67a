"""Names of checkpoints in a config, and the paths that follow from them.

base                                                    the model that SFT starts from
sft-1                                                   an SFT model, by its seed
{soup: {sft-1: 0.5, sft-2: 0.5}}                        a weighted average of such models
{slerp: {sft-1: 0.5, sft-2: 0.5}}                       their average on the arc between their changes from the base
{slerp: {sft-1: 0.3, sft-2: 0.3, base: 0.4}}            the same, drawn 40 % of the way back to the base (LITI)
{greedy: [sft-1, sft-2, sft-3]}                         a soup of those of them that raise its reward
{perturbed: {of: sft-1, like: {sft-1: 0.5, sft-2: 0.5}}}    an SFT model moved at random as far as a soup is from it
"""

import re
from typing import Literal

from salsa.config.fields import Count, Section
from salsa.runtime.errors import UserError

SFT_NAME = re.compile(r"^sft-(\d+)$")
BASE = "base"
WEIGHT_TOLERANCE = 1e-6


class Perturbed(Section):
    """The SFT model `of` plus random noise; each tensor moves as far as the soup `like` is from it (L2 norm)."""

    of: str
    like: dict[str, float]
    draw: Count = 1


Average = dict[Literal["soup", "slerp"], dict[str, float]]
Checkpoint = str | Average | dict[Literal["greedy"], list[str]] | dict[Literal["perturbed"], Perturbed]


def soup_of(weights: dict[str, float]) -> Average:
    """The config's name of a soup with these weights."""
    return {"soup": weights}


def ingredients(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Names of the SFT models that a checkpoint is made of."""
    match checkpoint:
        case str():
            return (checkpoint,) if checkpoint != BASE else ()
        case {"soup": dict(weights)} | {"slerp": dict(weights)}:
            return tuple(sorted(weights.keys() - {BASE}))
        case {"greedy": list(models)}:
            return tuple(sorted(models))
        case {"perturbed": Perturbed(of=of, like=like)}:
            return tuple(sorted({of, *like}))
    raise AssertionError(checkpoint)


def soup_name(weights: dict[str, float]) -> str:
    """The folder name of a soup, which encodes its weights: sft-1@0.5+sft-2@0.5."""
    return "+".join(f"{name}@{weight:g}" for name, weight in sorted(weights.items()))


def parse_soup_name(name: str) -> dict[str, float]:
    """The inverse of `soup_name`, so that any soup can be requested by its path."""
    weights = {}
    for part in name.split("+"):
        ingredient, _, weight = part.partition("@")
        try:
            weights[ingredient] = float(weight)
        except ValueError:
            raise UserError(f"soup {name}: write it as sft-1@0.5+sft-2@0.5") from None
    return weights


def check_weights(weights: dict[str, float], where: str) -> None:
    """Raise a ValueError unless the weights sum to 1."""
    total = sum(weights.values())
    if abs(total - 1) > WEIGHT_TOLERANCE:
        raise ValueError(f"{where}: soup weights sum to {total:g}, not 1: correct them")


def sft_seed(name: str) -> str:
    """The seed in the name of an SFT model: "1" for sft-1."""
    match = SFT_NAME.match(name)
    if not match:
        raise ValueError(f"{name}: name an SFT seed (sft-1), base, or a soup ({{soup: {{sft-1: 0.5, sft-2: 0.5}}}})")
    return match.group(1)


def checked_soup_name(weights: dict[str, float]) -> str:
    """`soup_name` of valid weights; a ValueError otherwise."""
    if not weights:
        raise ValueError("a soup needs ingredients: {soup: {sft-1: 0.5, sft-2: 0.5}}")
    check_weights(weights, soup_name(weights))
    for name in weights.keys() - {BASE}:
        sft_seed(name)
    return soup_name(weights)


def checked_slerp_name(weights: dict[str, float]) -> str:
    """`soup_name` of weights that a spherical average can have; a ValueError otherwise."""
    name = checked_soup_name(weights)
    if any(weight < 0 for weight in weights.values()) or not any(weights[key] for key in weights.keys() - {BASE}):
        raise ValueError(f"slerp {name}: weights must not be negative, and not all weight may be on base: correct them")
    return name


def greedy_name(models: list[str]) -> str:
    """The folder name of a greedy soup: sft-1+sft-2. The order of the models does not matter."""
    return "+".join(sorted(models))


def checked_greedy_name(models: list[str]) -> str:
    """`greedy_name` of valid models; a ValueError otherwise."""
    for model in models:
        sft_seed(model)
    if len(models) < 2 or len(set(models)) < len(models):
        raise ValueError(f"greedy {models}: name two SFT models or more, each once: {{greedy: [sft-1, sft-2]}}")
    return greedy_name(models)


def checkpoint_name(checkpoint: Checkpoint) -> str:
    """Path of a checkpoint below checkpoints/GRID, with {model} as a placeholder: `sft/{model}/1`."""
    match checkpoint:
        case str():
            return "base/{model}" if checkpoint == BASE else f"sft/{{model}}/{sft_seed(checkpoint)}"
        case {"soup": dict(weights)}:
            return f"soup/{{model}}/{checked_soup_name(weights)}"
        case {"slerp": dict(weights)}:
            return f"slerp/{{model}}/{checked_slerp_name(weights)}"
        case {"greedy": list(models)}:
            return f"greedy/{{model}}/{checked_greedy_name(models)}"
        case {"perturbed": Perturbed(of=of, like=like, draw=draw)}:
            return f"perturbed/{{model}}/{sft_seed(of)}_{draw}_{checked_soup_name(like)}"
    raise ValueError(f"{checkpoint}: name an SFT seed (sft-1), base, or one of soup, slerp, greedy and perturbed")
