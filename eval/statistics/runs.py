"""Figures of whole training runs: how much they spread, and what share of them failed."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy

from eval.statistics.intervals import Interval


@dataclass(frozen=True)
class SpreadRatio:
    """Ratio of the standard deviations of two paired figures over runs, sd(a) / sd(b).

    `a`, `b` [n]: deviations of each run from its model's mean; `df`: their degrees of freedom.
    """

    a: np.ndarray
    b: np.ndarray
    df: int

    @classmethod
    def of(cls, runs: pd.DataFrame) -> "SpreadRatio":
        """Of the columns model, a and b, with one row a run."""
        centred = runs[["a", "b"]] - runs.groupby("model")[["a", "b"]].transform("mean")
        a, b = centred.to_numpy(dtype=float).T
        return cls(a, b, len(runs) - runs["model"].nunique())

    def interval(self, confidence: float) -> Interval:
        """Morgan's interval (1939): it allows for the correlation of a and b, which share their SFT models.

        For r the correlation and k = 1 + 2 (1 - r^2) t^2 / (df - 1), the ratio of variances times k -+ sqrt(k^2 - 1).
        The limits are NaN with fewer than two degrees of freedom, and where b does not vary.
        """
        squares_a, squares_b = float(self.a @ self.a), float(self.b @ self.b)
        if self.df < 2 or min(squares_a, squares_b) == 0:
            estimate = np.sqrt(squares_a / squares_b) if squares_b else np.nan
            return Interval(estimate, np.nan, np.nan, len(self.a), "")
        unexplained = 1 - float(self.a @ self.b) ** 2 / (squares_a * squares_b)
        t = float(scipy.stats.t.ppf((1 + confidence) / 2, self.df - 1))
        k = 1 + 2 * max(unexplained, 0.0) * t**2 / (self.df - 1)
        ratio, reach = squares_a / squares_b, np.sqrt(k**2 - 1)
        low, high = np.sqrt(ratio * (k - reach)), np.sqrt(ratio * (k + reach))
        return Interval(float(np.sqrt(ratio)), float(low), float(high), len(self.a), "runs")


@dataclass(frozen=True)
class DifferenceOfShares:
    """Difference of two shares: `a` of `runs` runs of one method, less `b` of as many of another."""

    a: float
    b: float
    runs: int

    def interval(self, confidence: float) -> Interval:
        """Newcombe's interval of independent shares (1998), which has a width where both are 0."""
        from statsmodels.stats.proportion import confint_proportions_2indep  # takes a second to load

        low, high = confint_proportions_2indep(
            self.a, self.runs, self.b, self.runs, method="newcomb", compare="diff", alpha=1 - confidence
        )
        return Interval((self.a - self.b) / self.runs, float(low), float(high), self.runs, "runs")
