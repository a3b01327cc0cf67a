"""Logistic regression of shares in [0, 1] with errors clustered by question (statsmodels' fit, sandwich errors).

The influence of each question on the coefficients is kept. The variance of anything computed from the coefficients, and
from the questions themselves, is then a sum of squares over questions.
"""

import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special, stats

MOST_STRENGTH = 15.0  # σ(15) is 1 to six digits: the data are separated, and errors are meaningless


@dataclass(frozen=True)
class Logistic:
    """Coefficients [k], the influence of each question on them [questions, k], and the question of each row [n]."""

    coefficients: np.ndarray
    influence: np.ndarray
    question: np.ndarray

    def share(self, rows: np.ndarray, weights: np.ndarray, confidence: float) -> tuple[float, float, float]:
        """Weighted mean of the expected share over design rows [n, k], with its limits.

        Give one row, or one per fitted row (then the variation of the questions is included). Limits are normal on the
        logit scale; NaN if the data are separated or there is only one question.
        """
        logits = rows @ self.coefficients
        expected = special.expit(logits)
        total = weights.sum()
        mean = float((weights * expected).sum() / total)
        gradient = (weights * expected * (1 - expected)) @ rows / total
        influence = self.influence @ gradient
        if len(rows) > 1:
            influence = influence + np.bincount(self.question, weights * (expected - mean) / total, len(influence))
        if len(influence) < 2 or np.abs(logits).max() > MOST_STRENGTH:
            return mean, np.nan, np.nan
        error = np.sqrt(len(influence) / (len(influence) - 1) * (influence**2).sum()) / (mean * (1 - mean))
        reach = float(stats.norm.ppf((1 + confidence) / 2)) * error
        low, high = special.expit(special.logit(mean) + np.array([-reach, reach]))
        return mean, float(low), float(high)


def fit(shares: np.ndarray, weights: np.ndarray, design: np.ndarray, questions: Sequence[Hashable]) -> Logistic:
    """Fit shares [n] with weights [n] on a full-rank design [n, k]; `questions` [n] are the clusters."""
    import statsmodels.api as sm
    from statsmodels.tools.sm_exceptions import ConvergenceWarning, PerfectSeparationWarning

    question = np.unique(np.array([str(name) for name in questions]), return_inverse=True)[1]
    model = sm.GLM(shares, design, family=sm.families.Binomial(), var_weights=weights)
    with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        # `share` checks for what these warn of.
        for category in (PerfectSeparationWarning, ConvergenceWarning):
            warnings.simplefilter("ignore", category)
        result = model.fit(maxiter=100, tol=1e-12)
        bread = np.asarray(result.normalized_cov_params)
    scores = design * (weights * (shares - np.asarray(result.mu)))[:, None]
    by_question = np.zeros((question.max() + 1, design.shape[1]))
    np.add.at(by_question, question, scores)
    return Logistic(np.asarray(result.params), by_question @ bread, question)
