"""Logistic regression of shares in [0, 1] whose rows are not independent: statsmodels', with errors by question."""

import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special, stats

MOST_STRENGTH = 15.0  # σ of it is 1 to seven digits: there the data are separated, and errors mean nothing


@dataclass(frozen=True)
class Logistic:
    """Coefficients [k] and their covariance [k, k], which allows for rows of one question going together."""

    coefficients: np.ndarray
    covariance: np.ndarray

    def share(self, row: np.ndarray, confidence: float) -> tuple[float, float, float]:
        """The expected share at design row [k] with its limits (normal on the logit's scale); the limits are NaN where
        the data are separated, so that no finite coefficient is the likeliest."""
        logit = float(row @ self.coefficients)
        variance = float(row @ self.covariance @ row)
        estimate = float(special.expit(logit))
        if abs(logit) > MOST_STRENGTH or not np.isfinite(variance) or variance < 0:
            return estimate, np.nan, np.nan
        reach = float(stats.norm.ppf((1 + confidence) / 2)) * variance**0.5
        return estimate, float(special.expit(logit - reach)), float(special.expit(logit + reach))


def fit(shares: np.ndarray, weights: np.ndarray, design: np.ndarray, questions: Sequence[Hashable]) -> Logistic:
    """Shares [n] that weigh weights [n] on a design [n, k] of full rank; questions [n] name the clusters."""
    import statsmodels.api as sm
    from statsmodels.tools.sm_exceptions import ConvergenceWarning, PerfectSeparationWarning, SpecificationWarning

    groups = np.unique(np.array([str(question) for question in questions]), return_inverse=True)[1]
    model = sm.GLM(shares, design, family=sm.families.Binomial(), var_weights=weights)
    with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        # What the first two warn of is looked for where it matters, in `share`; that errors by cluster are right with
        # weights is not claimed by statsmodels, but held by a test of ours.
        for known in (PerfectSeparationWarning, ConvergenceWarning, SpecificationWarning):
            warnings.simplefilter("ignore", known)
        if groups.max() == 0:
            # One question says nothing of others.
            found = model.fit(maxiter=100, tol=1e-12)
            return Logistic(np.asarray(found.params), np.full((design.shape[1],) * 2, np.nan))
        found = model.fit(maxiter=100, tol=1e-12, cov_type="cluster", cov_kwds={"groups": groups})
        return Logistic(np.asarray(found.params), np.asarray(found.cov_params()))
