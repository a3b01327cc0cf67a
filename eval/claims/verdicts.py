"""From figures to verdicts.

A claim is about other training runs and other questions. So its interval has to be over runs, and one replicate decides
nothing. Two-sided p-values: that of a supported claim is the largest of its conditions (each has to hold); that of a
contradicted one the smallest of those on the other side, times the number of conditions (Bonferroni).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from eval.claims.settle import MORE_QUESTIONS, replicates_to_find
from eval.grid.claims import Condition
from eval.statistics.crossed import Components
from eval.statistics.intervals import Estimate, Estimated, Interval, p_value

Verdict = Literal["supported", "contradicted", "undecided", "not measured"]


@dataclass(frozen=True)
class Found:
    """A condition's figure, whether it is on the claimed side of the threshold, and its p-value."""

    interval: Interval
    on_claimed_side: bool
    p: float
    settled_by: tuple[int | None, int | None]  # replicates, with these questions and with 4 times as many
    components: Components | None = None  # of its variance, where that says what other numbers of runs would find


@dataclass(frozen=True)
class Judged:
    """A verdict and its p-value; NaN if nothing can be tested."""

    verdict: Verdict
    p: float


def found(estimated: Estimated | None, condition: Condition, confidence: float) -> Found | None:
    """Evaluate a condition; None if it was not measured."""
    if estimated is None:
        return None
    interval = estimated.interval(confidence)
    if np.isnan(interval.estimate):
        return None
    above = interval.estimate > condition.threshold
    p = p_value(estimated.interval, condition.threshold) if "runs" in interval.over else np.nan
    needed: tuple[int | None, int | None] = (None, None)
    components = estimated.variance.components if isinstance(estimated, Estimate) else None
    if components is not None:
        effect = interval.estimate - condition.threshold
        few, many = (
            replicates_to_find(effect, components, confidence, more * components.asked) for more in (1, MORE_QUESTIONS)
        )
        needed = (few, many)
    return Found(interval, above == (condition.above is not None), p, needed, components)


def judged(conditions: Sequence[Found | None], confidence: float) -> Judged:
    """The verdict on a claim by its conditions."""
    measured = [one for one in conditions if one is not None]
    if len(measured) < len(conditions):
        return Judged("not measured", np.nan)
    if any(np.isnan(one.p) for one in measured):
        return Judged("undecided", np.nan)
    against = [one.p for one in measured if not one.on_claimed_side]
    p = min(1.0, len(measured) * min(against)) if against else max(one.p for one in measured)
    return Judged(verdict(bool(against), p, confidence), p)


def verdict(against: bool, p: float, confidence: float) -> Verdict:
    """The verdict by the p-value; `against` says that a figure is not on the claimed side."""
    if np.isnan(p) or p > 1 - confidence:
        return "undecided"
    return "contradicted" if against else "supported"


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values of one family (1979); NaN where nothing was tested, which does not count."""
    from statsmodels.stats.multitest import multipletests  # takes a second to load

    tested = [i for i, p in enumerate(ps) if not np.isnan(p)]
    adjusted = [np.nan] * len(ps)
    if tested:
        for i, p in zip(tested, multipletests([ps[i] for i in tested], method="holm")[1], strict=True):
            adjusted[i] = float(p)
    return adjusted
