"""How many replicates would probably settle a claim."""

import bisect

import numpy as np
import scipy

from eval.statistics.crossed import Components

POWER = 0.8
MOST = 200  # replicates that anyone might train
MORE_QUESTIONS = 4
# The columns of claims.csv that hold the components of a figure's variance, over all models and benchmarks.
VARIANCE = {
    "runs": "variance_of_runs",
    "questions": "variance_of_questions",
    "noise": "variance_of_noise",
    "models": "models",
    "replicates": "replicates",
    "asked": "questions",
}


def detectable(
    components: Components, replicates: float, asked: float, confidence: float, models: int | None = None
) -> float:
    """Smallest effect that is found with `POWER`: (t of the confidence + t of the power) standard errors."""
    variance, df = components.at(replicates, asked, models)
    return float((scipy.stats.t.ppf((1 + confidence) / 2, df) + scipy.stats.t.ppf(POWER, df)) * np.sqrt(variance))


def replicates_to_find(
    effect: float, components: Components, confidence: float, asked: float, models: int | None = None
) -> int | None:
    """Smallest number of replicates that finds an effect of this size with so many questions; None beyond `MOST`, and
    where one replicate does not tell how much runs vary.
    """
    if components.replicates < 2 or effect == 0:
        return None

    def is_enough(replicates: int) -> bool:
        return detectable(components, replicates, asked, confidence, models) <= abs(effect)

    if not is_enough(MOST):
        return None
    return bisect.bisect_left(range(MOST), True, lo=2, key=is_enough)
