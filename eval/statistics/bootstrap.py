"""Bootstrap intervals over questions, for statistics without a simple variance, such as a rank correlation."""

import argparse
import warnings
from collections.abc import Callable
from typing import Self

import numpy as np
from scipy import stats

from eval.statistics.intervals import Interval
from salsa.config.sections import Calibration, Tables
from salsa.runtime.errors import UserError
from salsa.runtime.seeds import derive_seed

METHOD = "BCa"


def confidence_level(text: str) -> float:
    """Parse --confidence."""
    if not 0 < (level := float(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text}: between 0 and 1, for example 0.95")
    return level


def add_confidence_argument(parser: argparse.ArgumentParser) -> None:
    """Add --confidence."""
    default = Tables.model_fields["confidence"].default
    parser.add_argument(
        "--confidence", type=confidence_level, default=default, help="level of intervals (default 0.95)"
    )


class Resampling:
    """How intervals are computed. Each bootstrap has its own seed, derived from the names of its statistic."""

    def __init__(self, confidence: float, resamples: int, seed: int):
        self.confidence, self.resamples, self.seed = confidence, resamples, seed

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add --confidence, --resamples and --seed."""
        add_confidence_argument(parser)
        default = Calibration.model_fields["resamples"].default
        parser.add_argument("--resamples", type=int, default=default, help="bootstrap resamples of rank correlations")
        parser.add_argument("--seed", type=int, default=1, help="seed of the bootstrap")

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> Self:
        """From the arguments that `add_arguments` adds."""
        if arguments.resamples < 1:
            raise UserError("--resamples: at least 1")
        return cls(arguments.confidence, arguments.resamples, arguments.seed)

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
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        limits = stats.bootstrap(
            (indices,),
            of,
            vectorized=False,
            confidence_level=confidence,
            n_resamples=resamples,
            method=METHOD,
            rng=np.random.default_rng(seed),
        ).confidence_interval
    return Interval(estimate, float(limits.low), float(limits.high), questions, "questions")
