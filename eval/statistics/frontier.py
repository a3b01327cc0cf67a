"""Figures at equal KL: each method's curve of a figure against the KL, and the difference of two curves.

Reward follows d (a - b d) against d = sqrt(KL) in RLHF (Gao et al. 2022), which is a parabola in d. A method with one
policy has its figure at one KL, and is compared with another method's curve there. Two such methods are compared by how
far each is above a third method's curve.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

DEGREE = 2
PARTS = (0.25, 0.5, 0.75)  # of a shared range


@dataclass(frozen=True)
class Curve:
    """A parabola in sqrt(KL), fitted by least squares; valid from the smallest KL of a policy to the largest.

    The curve of a single policy is its figure, valid at its KL alone.
    """

    coefficients: np.ndarray
    low: float
    high: float

    @classmethod
    def fit(cls, kl: Sequence[float], values: Sequence[float], start: float | None = None) -> "Curve | None":
        """Fit the figures `values` of policies with this KL, and that of the start, where KL is 0.

        None if there are too few points for a parabola, and more than one policy.
        """
        if len(kl) == 1:
            return cls(np.array([values[0]]), kl[0], kl[0])
        x = [*kl, *([] if start is None else [0.0])]
        y = [*values, *([] if start is None else [start])]
        if len({*x}) <= DEGREE or not len(kl):
            return None
        roots = np.sqrt(np.maximum(x, 0.0))
        return cls(np.polynomial.polynomial.polyfit(roots, y, DEGREE), float(min(kl)), float(max(kl)))

    @property
    def is_single(self) -> bool:
        """Whether this is one policy's figure at its KL."""
        return self.low == self.high

    def at(self, kl: np.ndarray) -> np.ndarray:
        """The curve's values."""
        return np.asarray(np.polynomial.polynomial.polyval(np.sqrt(kl), self.coefficients))

    def mean(self, low: float, high: float) -> float:
        """The curve's mean over a range of KL: each power sqrt(KL)^j has the integral KL^(j/2 + 1) / (j/2 + 1)."""
        if low == high:
            return float(self.at(np.array(low)))
        powers = np.arange(len(self.coefficients)) / 2 + 1
        return float((self.coefficients * (high**powers - low**powers) / powers).sum() / (high - low))


@dataclass(frozen=True)
class EqualKl:
    """Difference of two curves where both are valid: at parts of the range, and its mean over it.

    Of two single policies: the range from one's KL to the other's, and one figure.
    """

    low: float
    high: float
    at_parts: tuple[float, ...]
    mean: float


def at_equal_kl(a: Curve, b: Curve) -> EqualKl | None:
    """a less b; None if no KL is reached by both."""
    low, high = max(a.low, b.low), min(a.high, b.high)
    if low > high:
        return None
    parts = low + (high - low) * np.array(PARTS)
    return EqualKl(low, high, tuple((a.at(parts) - b.at(parts)).tolist()), a.mean(low, high) - b.mean(low, high))


def above_curve(a: Curve, b: Curve, curve: Curve) -> EqualKl | None:
    """How far the policy a is above the curve at its KL, less how far the policy b is at its own.

    None if the curve does not reach both.
    """
    first, second = at_equal_kl(a, curve), at_equal_kl(b, curve)
    if first is None or second is None:
        return None
    low, high = sorted((first.low, second.low))
    difference = first.mean - second.mean
    return EqualKl(low, high, (difference,) * len(PARTS), difference)
