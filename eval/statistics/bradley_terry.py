"""Bradley-Terry: one strength per model, such that a beats b with probability σ(strength of a − strength of b).

Arena-Hard fits it by logistic regression on games; a strong verdict counts as three games and a tie as half a win. We
fit the points of each pair on each question, so that errors are over questions.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy

from eval.statistics.crossed import Cells
from eval.statistics.logistic import fit

Pair = tuple[str, str]


class Score(NamedTuple):
    """Probability of beating the baseline, with confidence limits."""

    estimate: float
    low: float
    high: float


def scores(matches: pd.DataFrame, pairs: Iterable[Pair], confidence: float) -> dict[Pair, Score]:
    """Score of each pair's first model against its second; they have to have met.

    `matches` has one row per match: question_id, a, b, points (of a) and weight (above 0). For two models that meet
    only each other the score is the weighted win rate.
    """
    names = sorted({*matches["a"], *matches["b"]})
    place = {name: number for number, name in enumerate(names)}
    a, b = (matches[side].map(place).to_numpy() for side in "ab")
    rows = np.arange(len(matches))
    design = np.zeros((len(matches), len(names)))
    design[rows, a], design[rows, b] = 1, -1
    # Only differences are identified, so the first model of each connected group has strength 0.
    _, group = scipy.sparse.csgraph.connected_components(
        scipy.sparse.coo_array((np.ones(len(rows)), (a, b)), shape=(len(names),) * 2), directed=False
    )
    free = [number for number in range(len(names)) if number not in {int(np.argmax(group == g)) for g in set(group)}]
    weights = matches["weight"].to_numpy(dtype=float)
    model_fit = fit(matches["points"].to_numpy() / weights, weights, design[:, free], Cells.of(matches))
    contrasts = {}
    for model, baseline in pairs:
        contrast = np.zeros((1, len(names)))
        contrast[0, place[model]], contrast[0, place[baseline]] = 1, -1
        contrasts[model, baseline] = Score(*model_fit.share(contrast[:, free], np.ones(1), confidence)[:3])
    return contrasts
