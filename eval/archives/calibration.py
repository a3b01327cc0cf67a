"""A judge measured against another's verdicts on the same prompts: the figures of its card.

Of comparisons, game by game:
agreement          the share on which both say the same: A, B or tie
agreement_decided  the share of the same winner, where both name one
first_place        the share of decided games that the answer shown first won: 0.5 without position bias
longer             the share of decided games that the longer answer won
swap_consistency   the share of matches whose two games agree
parse_rate         the share of calls with a verdict
cost               of a game or a rating, in the prices' currency
Of ratings:
within_one         the share that differ by 1 at most
difference         the mean of the judge's rating less the archive's
rank_correlation   Spearman's, between the two
length_correlation Spearman's, of ratings with the answer's length

Those of one judge are given for the archive's too, as archive_…, on the same items. Intervals are over questions.

A table of comparisons has a row a game: question_id, match, order ("ab" or "ba": who of the match was shown first),
archive and judge (the winner's place: A, B or tie; None without a verdict), longer (A, B or None), cost. One of ratings
has question_id, archive, judge, length, cost.
"""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy import stats

from eval.statistics.intervals import Interval
from eval.tables.aggregate import Resampling

Figures = dict[str, Interval]
Who = Literal["archive", "judge"]


def share(table: pd.DataFrame, hits: "pd.Series[bool]", draw: Resampling, *names: str) -> Interval:
    """The share of rows that hit."""
    return draw.ratio(table.assign(points=hits.astype(float), weight=1.0), *names)


def swap_consistency(table: pd.DataFrame, who: Who, draw: Resampling, *names: str) -> Interval:
    """Of matches with a verdict by this judge in both orders."""
    swapped = {"A": "B", "B": "A", "tie": "tie"}
    winner = table[who].where(table["order"] == "ab", table[who].map(swapped))
    matches = table.assign(winner=winner).dropna(subset="winner").groupby("match", sort=False)
    found = matches.agg(question_id=("question_id", "first"), games=("winner", "size"), kinds=("winner", "nunique"))
    both = found[found["games"] == 2]
    return share(both, both["kinds"] == 1, draw, *names)


def comparison_figures(table: pd.DataFrame, draw: Resampling, *names: str) -> Figures:
    """What can be said of two judges' verdicts on the same games."""
    both = table.dropna(subset=["archive", "judge"])
    decided = both[(both["archive"] != "tie") & (both["judge"] != "tie")]
    found = {
        "agreement": share(both, both["archive"] == both["judge"], draw, *names, "agreement"),
        "agreement_decided": share(decided, decided["archive"] == decided["judge"], draw, *names, "decided"),
    }
    sides: tuple[tuple[Who, str], ...] = (("judge", ""), ("archive", "archive_"))
    for who, prefix in sides:
        won = both[both[who] != "tie"]
        unequal = won.dropna(subset="longer")
        found |= {
            f"{prefix}first_place": share(won, won[who] == "A", draw, *names, who, "first"),
            f"{prefix}longer": share(unequal, unequal[who] == unequal["longer"], draw, *names, who, "longer"),
            f"{prefix}swap_consistency": swap_consistency(both, who, draw, *names, who, "swap"),
        }
    return found | common(table, draw, *names)


def rating_figures(table: pd.DataFrame, draw: Resampling, *names: str) -> Figures:
    """What can be said of two judges' ratings of the same answers."""
    both = table.dropna(subset=["archive", "judge"]).astype({"archive": float, "judge": float})
    difference = both["judge"] - both["archive"]
    return {
        "within_one": share(both, difference.abs() <= 1, draw, *names, "within one"),
        "difference": draw.pooled_mean(difference, both["question_id"], *names, "difference"),
        "rank_correlation": correlation(both, "judge", "archive", draw, *names, "rank"),
        "length_correlation": correlation(both, "judge", "length", draw, *names, "length"),
        "archive_length_correlation": correlation(both, "archive", "length", draw, *names, "archive length"),
        **common(table, draw, *names),
    }


def common(table: pd.DataFrame, draw: Resampling, *names: str) -> Figures:
    found = {"parse_rate": share(table, table["judge"].notna(), draw, *names, "parse")}
    priced = table.dropna(subset="cost")
    if len(priced):
        found["cost"] = draw.pooled_mean(priced["cost"].astype(float), priced["question_id"], *names, "cost")
    return found


def correlation(table: pd.DataFrame, one: str, other: str, draw: Resampling, *names: str) -> Interval:
    """Spearman's; NaN where either does not vary."""
    known = table.dropna(subset=[one, other])
    values = known[[one, other]].to_numpy(dtype=float)
    places = known.groupby("question_id", sort=False).indices
    questions = [np.asarray(rows) for rows in places.values()]

    def of(chosen: np.ndarray) -> float:
        x, y = values[np.concatenate([questions[int(n)] for n in chosen])].T
        return float(stats.spearmanr(x, y).statistic) if np.ptp(x) and np.ptp(y) else np.nan

    return draw.statistic(of, len(questions), *names)


CARD: dict[str, Callable[..., Figures]] = {
    "mt_bench_single": rating_figures,
    "mt_bench_pair": comparison_figures,
    "arena_hard": comparison_figures,
}
TITLES = {
    "agreement": "agreement",
    "agreement_decided": "agreement, both decided",
    "within_one": "ratings within 1",
    "difference": "rating, judge less archive",
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
    "cost": "cost of one",
}


def card_rows(card: dict[str, Any]) -> list[dict[str, Any]]:
    """A card's figures in long form, for tables: cell, figure, estimate, low, high, n."""
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
