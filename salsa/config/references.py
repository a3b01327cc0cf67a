"""Reference strategies: what the KL penalty is measured against. Each is a class here and a line in the config.

reference: sft-1                                  Fixed: one frozen checkpoint (a soup, a perturbed model: the same)
reference: {mean_kl: {of: [sft-1, sft-2]}}        MeanKl: the average of several references' log-probabilities
reference: {ema: {of: sft-1, rate: 0.01}}         Ema: a moving average of the policy

The config validates with these classes, so torch stays out; trainers pass tensors in.
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
    """How a reference is computed from its checkpoints (`of`). Fields are the settings of the config's line."""

    kind: ClassVar[str]
    moves: ClassVar[bool] = False  # whether training changes it; such a reference is float32, and DPO refuses it

    def check(self, count: int) -> None:
        """Raise a ValueError if the strategy cannot use this number of checkpoints."""
        if count != 1:
            raise ValueError(f"{self.kind}: takes one checkpoint, not {count}")

    def combine(self, parts: Sequence[Any]) -> Any:
        """Log-probabilities of the reference (or the KL to it) from those of its checkpoints; tensors or floats."""
        return parts[0]

    def after_step(self, models: Sequence[Any], policy: Any, step: int) -> None:
        """Called without gradients after each optimiser step of the policy (from 1); may update `models` in place."""


class Fixed(Strategy):
    """One frozen checkpoint: PPO's SFT model, or SALSA's soup."""

    kind = "fixed"


class MeanKl(Strategy):
    """The weighted mean of the KLs to several references: log ref = sum_i w_i log ref_i, equal weights by default.

    This is the log of the references' weighted geometric mean without its normaliser, which is the same for all
    responses to a prompt and so shifts all rewards equally.
    """

    kind = "mean_kl"
    weights: list[Fraction] | None = None

    def check(self, count: int) -> None:
        if count < 2:
            raise ValueError("mean_kl: takes two checkpoints or more")
        if self.weights is not None and len(self.weights) != count:
            raise ValueError(f"mean_kl: {len(self.weights)} weights for {count} checkpoints: give one for each")
        if self.weights is not None and abs(sum(self.weights) - 1) > WEIGHT_TOLERANCE:
            raise ValueError(f"mean_kl: weights sum to {sum(self.weights):g}, not 1: correct them")

    def combine(self, parts: Sequence[Any]) -> Any:
        weights = self.weights or [1 / len(parts)] * len(parts)
        return sum(weight * part for weight, part in zip(weights, parts, strict=True))


class Ema(Strategy):
    """An exponential moving average of the policy: theta <- (1 - rate) theta + rate policy, after each optimiser step.

    The anchor of WARP (Ramé et al. 2024, arXiv 2406.16768), which uses rate 0.01.
    """

    kind = "ema"
    moves = True
    rate: Fraction = 0.01

    def after_step(self, models: Sequence[Any], policy: Any, step: int) -> None:
        for average, new in zip(models[0].parameters(), policy.parameters(), strict=True):
            average.lerp_(new, self.rate)


def strategies() -> dict[str, type[Strategy]]:
    """All strategies by their name in the config."""
    return {strategy.kind: strategy for strategy in Strategy.__subclasses__()}


def make_strategy(kind: str, settings: dict[str, Any]) -> Strategy:
    """The strategy `kind` with these settings; a ValueError if there is none."""
    known = strategies()
    if kind not in known:
        kinds = ", ".join(["soup", "slerp", "greedy", "perturbed", *sorted(known)])
        raise ValueError(f"{kind}: unknown reference: name one of {kinds}")
    return known[kind].model_validate(settings)


def parse_reference(value: Any) -> tuple[Strategy, list[Checkpoint]]:
    """Parse a config's `reference`: the strategy and its checkpoints. A ValueError says what is wrong."""
    match value:
        case str() | {"soup": _} | {"slerp": _} | {"greedy": _} | {"perturbed": _}:
            return Fixed(), [CHECKPOINT.validate_python(value)]
        case dict() if len(value) == 1:
            [(kind, settings)] = value.items()
            if not isinstance(settings, dict) or "of" not in settings:
                raise ValueError(f"{kind}: name its checkpoints: {{{kind}: {{of: sft-1}}}}")
            of = settings["of"] if isinstance(settings["of"], list) else [settings["of"]]
            strategy = make_strategy(kind, {key: part for key, part in settings.items() if key != "of"})
            strategy.check(len(of))
            return strategy, [CHECKPOINT.validate_python(part) for part in of]
    raise ValueError("name a checkpoint (sft-1, {soup: …}) or one strategy ({ema: {of: sft-1, rate: 0.01}})")


def strategy_data(strategy: Strategy) -> dict[str, Any]:
    """The strategy as {kind: settings}."""
    return {strategy.kind: strategy.model_dump(exclude_none=True)}


def strategy_json(strategy: Strategy) -> str:
    """The strategy as text for --strategy; `parse_strategy` reads it."""
    return json.dumps(strategy_data(strategy))


def parse_strategy(text: str, count: int) -> Strategy:
    """Parse --strategy for a reference of `count` checkpoints."""
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
