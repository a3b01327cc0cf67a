"""Reference strategies: what the KL penalty is measured against. A strategy is a class here and a line in the config.

reference: sft-1                                  Fixed: one frozen checkpoint (a soup, a perturbed model: the same)
reference: {mean_kl: {of: [sft-1, sft-2]}}        MeanKl: the average of several references' log-probabilities
reference: {ema: {of: sft-1, rate: 0.01}}         Ema: a moving average of the policy

Torch is not imported here: the config checks strategies with these classes, and trainers hand them tensors.
"""

import json
from collections.abc import Sequence
from typing import Any, ClassVar

from pydantic import TypeAdapter, ValidationError

from salsa.config.fields import Fraction, Section
from salsa.config.naming import WEIGHT_TOLERANCE, Checkpoint
from salsa.runtime.errors import UserError

CHECKPOINT: TypeAdapter[Checkpoint] = TypeAdapter(Checkpoint)


class Strategy(Section):
    """How a reference follows from the checkpoints it is made `of`. Fields are settings of the config's line."""

    kind: ClassVar[str]
    moves: ClassVar[bool] = False  # whether training changes it: such a one is loaded in float32, and DPO takes none

    def check(self, count: int) -> None:
        """A ValueError where it cannot be made of so many checkpoints."""
        if count != 1:
            raise ValueError(f"{self.kind}: is made of one checkpoint, not {count}")

    def combine(self, each: Sequence[Any]) -> Any:
        """The reference's log-probabilities (or the KL to it) from those of each checkpoint, tensors or floats."""
        return each[0]

    def after_step(self, models: Sequence[Any], policy: Any, step: int) -> None:
        """Called without gradients after each of the policy's optimiser steps, from 1; may change `models` in place."""


class Fixed(Strategy):
    """One checkpoint that stays as it is: PPO's, and SALSA's soup."""

    kind = "fixed"


class MeanKl(Strategy):
    """The weighted mean of the KLs to several references: log ref = sum_i w_i log ref_i, equal weights by default.

    As a distribution this is the references' geometric mean, without its normaliser: that shifts all rewards alike.
    """

    kind = "mean_kl"
    weights: list[Fraction] | None = None

    def check(self, count: int) -> None:
        if count < 2:
            raise ValueError("mean_kl: is made of two checkpoints or more")
        if self.weights is not None and len(self.weights) != count:
            raise ValueError(f"mean_kl: {len(self.weights)} weights for {count} checkpoints: give each one")
        if self.weights is not None and abs(sum(self.weights) - 1) > WEIGHT_TOLERANCE:
            raise ValueError(f"mean_kl: weights sum to {sum(self.weights):g}, not 1: correct them")

    def combine(self, each: Sequence[Any]) -> Any:
        weights = self.weights or [1 / len(each)] * len(each)
        return sum(weight * part for weight, part in zip(weights, each, strict=True))


class Ema(Strategy):
    """An exponential moving average of the policy: theta <- (1 - rate) theta + rate policy, after each optimiser step.

    WARP's anchor (Ramé et al. 2024, arXiv 2406.16768), there at rate 0.01.
    """

    kind = "ema"
    moves = True
    rate: Fraction = 0.01

    def after_step(self, models: Sequence[Any], policy: Any, step: int) -> None:
        for mine, new in zip(models[0].parameters(), policy.parameters(), strict=True):
            mine.lerp_(new, self.rate)


def strategies() -> dict[str, type[Strategy]]:
    """Every strategy by its name in the config."""
    return {strategy.kind: strategy for strategy in Strategy.__subclasses__()}


def make_strategy(kind: str, settings: dict[str, Any]) -> Strategy:
    """The strategy of that name with these settings; a ValueError where there is none."""
    known = strategies()
    if kind not in known:
        raise ValueError(f"{kind}: no such reference: name one of soup, perturbed, {', '.join(sorted(known))}")
    return known[kind].model_validate(settings)


def parse_reference(value: Any) -> tuple[Strategy, list[Checkpoint]]:
    """The strategy of a config's line, and the checkpoints it is made of; a ValueError where it is wrong."""
    match value:
        case str() | {"soup": _} | {"perturbed": _}:
            return Fixed(), [CHECKPOINT.validate_python(value)]
        case dict() if len(value) == 1:
            [(kind, settings)] = value.items()
            if not isinstance(settings, dict) or "of" not in settings:
                raise ValueError(f"{kind}: say what it is made of: {{{kind}: {{of: sft-1}}}}")
            of = settings["of"] if isinstance(settings["of"], list) else [settings["of"]]
            strategy = make_strategy(kind, {key: part for key, part in settings.items() if key != "of"})
            strategy.check(len(of))
            return strategy, [CHECKPOINT.validate_python(part) for part in of]
    raise ValueError("name a checkpoint (sft-1, {soup: …}) or one strategy ({ema: {of: sft-1, rate: 0.01}})")


def strategy_data(strategy: Strategy) -> dict[str, Any]:
    """The strategy as data, {kind: settings}."""
    return {strategy.kind: strategy.model_dump(exclude_none=True)}


def strategy_json(strategy: Strategy) -> str:
    """What `parse_strategy` reads, for a command line."""
    return json.dumps(strategy_data(strategy))


def parse_strategy(text: str, count: int) -> Strategy:
    """The strategy of a command line's --strategy, made of `count` checkpoints."""
    try:
        [(kind, settings)] = json.loads(text).items()
        strategy = make_strategy(kind, settings)
        strategy.check(count)
    except ValidationError as error:
        [first, *_] = error.errors()
        raise UserError(f"--strategy {text}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except (AttributeError, TypeError, ValueError) as error:
        reason = str(error) if isinstance(error, ValueError) else 'write it as {"ema": {"rate": 0.01}}'
        raise UserError(f"--strategy {text}: {reason}") from None
    return strategy
