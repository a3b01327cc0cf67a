"""Bootstrap intervals over questions, for statistics without a simple variance, such as a rank correlation."""

import warnings
from collections.abc import Callable

import numpy as np
import scipy

from eval.statistics.intervals import Interval
from salsa.runtime.seeds import derive_seed

METHOD = "BCa"


class Resampling:
    """How intervals are computed. Each bootstrap has its own seed, derived from the names of its statistic."""

    def __init__(self, confidence: float, resamples: int, seed: int):
        self.confidence, self.resamples, self.seed = confidence, resamples, seed

    def statistic(self, of: Callable[[np.ndarray], float], questions: int, *names: str) -> Interval:
        """Any statistic of question indices; a resample contains repeated indices."""
        seed = derive_seed(self.seed, "tables", *names)
        return statistic_interval(of, questions, self.confidence, self.resamples, seed)


def statistic_interval(
    of: Callable[[np.ndarray], float], questions: int, confidence: float, resamples: int, seed: int
) -> Interval:
    """Any statistic `of(question indices)` with BCa bootstrap limits; NaN where it is undefined for a resample."""
    indices = np.arange(questions)
    estimate = of(indices) if questions else np.nan
    if questions < 2 or np.isnan(estimate):
        return Interval(estimate, np.nan, np.nan, questions)
    with np.errstate(invalid="ignore"), warnings.catch_warnings():
        # If all resamples agree, scipy warns and returns NaN limits.
        warnings.simplefilter("ignore", scipy.stats.DegenerateDataWarning)
        limits = scipy.stats.bootstrap(
            (indices,),
            of,
            vectorized=False,
            confidence_level=confidence,
            n_resamples=resamples,
            method=METHOD,
            rng=np.random.default_rng(seed),
        ).confidence_interval
    return Interval(estimate, float(limits.low), float(limits.high), questions, "questions")
