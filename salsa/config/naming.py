"""Names of checkpoints in a config, and the paths that follow from them.

sft-1                                                   an SFT model, by its seed
{soup: {sft-1: 0.5, sft-2: 0.5}}                        a weighted average of SFT models
{perturbed: {of: sft-1, like: {sft-1: 0.5, sft-2: 0.5}}}    an SFT model moved at random as far as a soup is from it
"""

import re
from typing import Literal

from salsa.config.fields import Count, Section
from salsa.runtime.errors import UserError

SFT_NAME = re.compile(r"^sft-(\d+)$")
WEIGHT_TOLERANCE = 1e-6


class Perturbed(Section):
    """The SFT model `of` plus random noise; each tensor moves as far as the soup `like` is from it (L2 norm)."""

    of: str
    like: dict[str, float]
    draw: Count = 1


Checkpoint = str | dict[Literal["soup"], dict[str, float]] | dict[Literal["perturbed"], Perturbed]


def soup_of(weights: dict[str, float]) -> dict[Literal["soup"], dict[str, float]]:
    """The config's name of a soup with these weights."""
    return {"soup": weights}


def ingredients(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Names of the SFT models that a checkpoint is made of."""
    match checkpoint:
        case str():
            return (checkpoint,)
        case {"soup": dict(weights)}:
            return tuple(sorted(weights))
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
        raise ValueError(f"{name}: name an SFT seed (sft-1) or a soup ({{soup: {{sft-1: 0.5, sft-2: 0.5}}}})")
    return match.group(1)


def checked_soup_name(weights: dict[str, float]) -> str:
    """`soup_name` of valid weights; a ValueError otherwise."""
    if not weights:
        raise ValueError("a soup needs ingredients: {soup: {sft-1: 0.5, sft-2: 0.5}}")
    check_weights(weights, soup_name(weights))
    return soup_name(weights)


def checkpoint_name(checkpoint: Checkpoint) -> str:
    """Path of a checkpoint below checkpoints/GRID, with {model} as a placeholder: `sft/{model}/1`."""
    match checkpoint:
        case str():
            return f"sft/{{model}}/{sft_seed(checkpoint)}"
        case {"soup": dict(weights)}:
            return f"soup/{{model}}/{checked_soup_name(weights)}"
        case {"perturbed": Perturbed(of=of, like=like, draw=draw)}:
            return f"perturbed/{{model}}/{sft_seed(of)}_{draw}_{checked_soup_name(like)}"
    raise ValueError(f"{checkpoint}: name an SFT seed (sft-1), a soup or a perturbed SFT model")
