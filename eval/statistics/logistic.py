"""Logistic regression of shares in [0, 1] with errors over training runs and questions (statsmodels' fit, crossed.py).

The influence of each observation on the coefficients is kept (bread times score). The influence on anything computed
from the coefficients, and from the observations themselves, follows by the chain rule.
"""

import warnings
from dataclasses import dataclass

import numpy as np
import scipy

from eval.statistics.crossed import Cells, Over, crossed_variance

MOST_STRENGTH = 15.0  # σ(15) is 1 to six digits: the data are separated, and errors are meaningless


@dataclass(frozen=True)
class Logistic:
    """Coefficients [k], the influence of each fitted row on them [n, k], and what each row is about."""

    coefficients: np.ndarray
    influence: np.ndarray
    cells: Cells

    def share(self, rows: np.ndarray, weights: np.ndarray, confidence: float) -> tuple[float, float, float, Over]:
        """Weighted mean of the expected share over design rows [n, k], with its limits and what they are over.

        Give one row, or one per fitted row (then the variation of the questions is included). Limits are Student's on
        the logit scale; NaN if the data are separated or there is only one question.
        """
        logits = rows @ self.coefficients
        expected = scipy.special.expit(logits)
        total = weights.sum()
        mean = float((weights * expected).sum() / total)
        gradient = (weights * expected * (1 - expected)) @ rows / total
        influence = self.influence @ gradient
        if len(rows) > 1:
            influence = influence + weights * (expected - mean) / total
        variance = crossed_variance(influence, self.cells)
        if np.isnan(variance.value) or np.abs(logits).max() > MOST_STRENGTH:
            return mean, np.nan, np.nan, variance.over
        error = np.sqrt(variance.value) / (mean * (1 - mean))
        reach = float(scipy.stats.t.ppf((1 + confidence) / 2, variance.df)) * error
        low, high = scipy.special.expit(scipy.special.logit(mean) + np.array([-reach, reach]))
        return mean, float(low), float(high), variance.over


def fit(shares: np.ndarray, weights: np.ndarray, design: np.ndarray, cells: Cells) -> Logistic:
    """Fit shares [n] with weights [n] on a full-rank design [n, k]; `cells` says what each row is about."""
    import statsmodels.api as sm  # takes a second to load
    from statsmodels.tools.sm_exceptions import ConvergenceWarning, PerfectSeparationWarning

    model = sm.GLM(shares, design, family=sm.families.Binomial(), var_weights=weights)
    with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        # `share` checks for what these warn of.
        for category in (PerfectSeparationWarning, ConvergenceWarning):
            warnings.simplefilter("ignore", category)
        result = model.fit(maxiter=100, tol=1e-12)
        bread = np.asarray(result.normalized_cov_params)
    scores = design * (weights * (shares - np.asarray(result.mu)))[:, None]
    return Logistic(np.asarray(result.params), scores @ bread, cells)
