"""How many replicates would probably settle a claim."""

import bisect

import numpy as np
from scipy import stats

from eval.statistics.crossed import Components

POWER = 0.8
MOST = 200  # replicates that anyone might train
MORE_QUESTIONS = 4


def detectable(components: Components, replicates: float, asked: float, confidence: float) -> float:
    """Smallest effect that is found with `POWER`: (t of the confidence + t of the power) standard errors."""
    variance, df = components.at(replicates, asked)
    return float((stats.t.ppf((1 + confidence) / 2, df) + stats.t.ppf(POWER, df)) * np.sqrt(variance))


def replicates_to_settle(
    effect: float, components: Components, confidence: float, questions: float = 1.0
) -> int | None:
    """Smallest number of replicates that finds an effect of this size, with so many times the questions; None beyond
    `MOST`, and where one replicate does not tell how much runs vary.
    """
    if components.replicates < 2 or effect == 0:
        return None

    def is_enough(replicates: int) -> bool:
        return detectable(components, replicates, questions * components.asked, confidence) <= abs(effect)

    if not is_enough(MOST):
        return None
    return bisect.bisect_left(range(MOST), True, lo=2, key=is_enough)
