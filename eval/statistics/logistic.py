"""Logistic regression of shares in [0, 1] whose rows are not independent: statsmodels' fit, with errors by question.

Each question's influence on the coefficients is kept, so that the error of anything that is computed from them, and
from the questions themselves, is a sum of squares over questions (the cluster-robust sandwich).
"""

import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special, stats

MOST_STRENGTH = 15.0  # σ of it is 1 to six digits: the data are separated there, and no error is to be had


@dataclass(frozen=True)
class Logistic:
    """Coefficients [k], the influence [questions, k] on them of each question, and the rows' question [n]."""

    coefficients: np.ndarray
    influence: np.ndarray
    question: np.ndarray

    def share(self, rows: np.ndarray, weights: np.ndarray, confidence: float) -> tuple[float, float, float]:
        """The mean over design rows [n, k], which weigh weights [n], of the expected share, with its limits.

        There is one row, or one for each that was fitted; these vary with the questions drawn. Limits are normal on the
        logit's scale, and NaN where the data are separated, so that no finite coefficient is the likeliest, and
        where there is but one question.
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
    """Shares [n] that weigh weights [n] on a design [n, k] of full rank; questions [n] name the clusters."""
    import statsmodels.api as sm
    from statsmodels.tools.sm_exceptions import ConvergenceWarning, PerfectSeparationWarning

    question = np.unique(np.array([str(name) for name in questions]), return_inverse=True)[1]
    model = sm.GLM(shares, design, family=sm.families.Binomial(), var_weights=weights)
    with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        # What they warn of is looked for where it matters, in `share`.
        for known in (PerfectSeparationWarning, ConvergenceWarning):
            warnings.simplefilter("ignore", known)
        found = model.fit(maxiter=100, tol=1e-12)
        bread = np.asarray(found.normalized_cov_params)
    scores = design * (weights * (shares - np.asarray(found.mu)))[:, None]
    by_question = np.zeros((question.max() + 1, design.shape[1]))
    np.add.at(by_question, question, scores)
    return Logistic(np.asarray(found.params), by_question @ bread, question)
