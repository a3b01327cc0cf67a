"""Compare a judge's verdicts with archived ones on the same prompts: the figures of a judge's card.

Comparisons, game by game:
agreement          share with the same verdict (A, B or tie)
agreement_decided  share with the same winner, where both judges name one
first_place        share of decided games won by the answer shown first; 0.5 without position bias
longer             share of decided games won by the longer answer
swap_consistency   share of matches whose two games agree
parse_rate         share of calls with a verdict
cost               cost of a game or a rating, in the prices' currency
Ratings:
within_one         share of ratings that differ by at most 1
difference         mean of the judge's rating minus the archive's
rank_correlation   Spearman's correlation of the two ratings
length_correlation Spearman's correlation of ratings with answer length

Figures of a single judge are also given for the archive, as archive_…, on the same items. Intervals are over questions.

The table of comparisons has one row per game: question_id, match, order ("ab" or "ba": which model was shown first),
archive and judge (the winner's position: A, B or tie; None without a verdict), longer (A, B or None), cost. The table
of ratings has question_id, archive, judge, length, cost.
"""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pandas as pd
import scipy

from eval.statistics.bootstrap import Resampling
from eval.statistics.intervals import Interval, mean, win_rate

Figures = dict[str, Interval]
Who = Literal["archive", "judge"]


def share(table: pd.DataFrame, hits: "pd.Series[bool]", draw: Resampling) -> Interval:
    """Share of rows with a hit."""
    return win_rate(table.assign(points=hits.astype(float), weight=1.0), draw.confidence)


def swap_consistency(table: pd.DataFrame, who: Who, draw: Resampling) -> Interval:
    """`swap_consistency` of a judge, over matches with its verdict in both orders."""
    swapped = {"A": "B", "B": "A", "tie": "tie"}
    winner = table[who].where(table["order"] == "ab", table[who].map(swapped))
    matches = table.assign(winner=winner).dropna(subset="winner").groupby("match", sort=False)
    counts = matches.agg(question_id=("question_id", "first"), games=("winner", "size"), kinds=("winner", "nunique"))
    both = counts[counts["games"] == 2]
    return share(both, both["kinds"] == 1, draw)


def comparison_figures(table: pd.DataFrame, draw: Resampling, *_: str) -> Figures:
    """All figures of comparisons."""
    both = table.dropna(subset=["archive", "judge"])
    decided = both[(both["archive"] != "tie") & (both["judge"] != "tie")]
    figures = {
        "agreement": share(both, both["archive"] == both["judge"], draw),
        "agreement_decided": share(decided, decided["archive"] == decided["judge"], draw),
    }
    sides: tuple[tuple[Who, str], ...] = (("judge", ""), ("archive", "archive_"))
    for who, prefix in sides:
        won = both[both[who] != "tie"]
        unequal = won.dropna(subset="longer")
        figures |= {
            f"{prefix}first_place": share(won, won[who] == "A", draw),
            f"{prefix}longer": share(unequal, unequal[who] == unequal["longer"], draw),
            f"{prefix}swap_consistency": swap_consistency(both, who, draw),
        }
    return figures | common(table, draw)


def rating_figures(table: pd.DataFrame, draw: Resampling, *names: str) -> Figures:
    """All figures of ratings."""
    both = table.dropna(subset=["archive", "judge"]).astype({"archive": float, "judge": float})
    difference = both["judge"] - both["archive"]
    return {
        "within_one": share(both, difference.abs() <= 1, draw),
        "difference": mean(difference, both, draw.confidence, pooled=True),
        "rank_correlation": correlation(both, "judge", "archive", draw, *names, "rank"),
        "length_correlation": correlation(both, "judge", "length", draw, *names, "length"),
        "archive_length_correlation": correlation(both, "archive", "length", draw, *names, "archive length"),
        **common(table, draw),
    }


def common(table: pd.DataFrame, draw: Resampling) -> Figures:
    """Figures of both kinds: parse rate and cost."""
    figures = {"parse_rate": share(table, table["judge"].notna(), draw)}
    priced = table.dropna(subset="cost")
    if len(priced):
        figures["cost"] = mean(priced["cost"].astype(float), priced, draw.confidence, pooled=True)
    return figures


def correlation(table: pd.DataFrame, one: str, other: str, draw: Resampling, *names: str) -> Interval:
    """Spearman's correlation of two columns; NaN if one does not vary."""
    known = table.dropna(subset=[one, other])
    values = known[[one, other]].to_numpy(dtype=float)
    places = known.groupby("question_id", sort=False).indices
    questions = [np.asarray(rows) for rows in places.values()]

    def spearman(resample: np.ndarray) -> float:
        x, y = values[np.concatenate([questions[int(n)] for n in resample])].T
        return float(scipy.stats.spearmanr(x, y).statistic) if np.ptp(x) and np.ptp(y) else np.nan

    return draw.statistic(spearman, len(questions), *names)


CARD: dict[str, Callable[..., Figures]] = {
    "mt_bench_single": rating_figures,
    "mt_bench_pair": comparison_figures,
    "arena_hard": comparison_figures,
}
TITLES = {
    "agreement": "agreement",
    "agreement_decided": "agreement, both decided",
    "within_one": "ratings within 1",
    "difference": "rating, judge minus archive",
    "rank_correlation": "rank correlation",
    "first_place": "first place won",
    "archive_first_place": "first place won, archive",
    "longer": "longer answer won",
    "archive_longer": "longer answer won, archive",
    "length_correlation": "rating with length",
    "archive_length_correlation": "rating with length, archive",
    "swap_consistency": "both orders agree",
    "archive_swap_consistency": "both orders agree, archive",
    "parse_rate": "calls with a verdict",
    "cost": "cost per item",
}


def card_rows(card: dict[str, Any]) -> list[dict[str, Any]]:
    """The figures of a card in long form: cell, figure, estimate, low, high, n."""
    return [
        {
            "cell": f"{cell['benchmark']}, {cell['protocol']}, archive {cell['archive_judge']}",
            "figure": TITLES[name],
            **{key: figure[key] if figure[key] is not None else float("nan") for key in ("estimate", "low", "high")},
            "n": figure["n"],
        }
        for cell in card["cells"]
        for name, figure in sorted(cell["figures"].items(), key=lambda entry: list(TITLES).index(entry[0]))
    ]
