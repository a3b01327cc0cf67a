"""The table of claims: verdicts, with the figures that they come from."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from eval.claims.observations import estimate, observations
from eval.claims.settle import MORE_QUESTIONS, VARIANCE
from eval.claims.verdicts import Found, Verdict, found, holm, judged, verdict
from eval.grid.claims import PER_QUESTION, Claim, Condition
from eval.grid.layout import ALL_MODELS
from eval.grid.results import GridResults
from eval.statistics.intervals import NO_INTERVAL
from eval.tables.formats import NOTHING, with_interval
from eval.tables.table import Column, Table, copied
from salsa.runtime.texts import counted

ALL = ALL_MODELS  # of models or benchmarks
Row = dict[str, Any]
COLUMNS = ["claim", "says", "family", "condition", "confidence", "figure", "model", "benchmark"]
COLUMNS += ["estimate", "low", "high", "side", "threshold", "n", "over", "p", "on_claimed_side"]
COLUMNS += ["verdict", "p_claim", "p_holm", "verdict_holm", "replicates_to_settle", "with_more_questions"]
COLUMNS += [*VARIANCE.values()]
NOT_FOUND = Found(NO_INTERVAL, False, np.nan, (None, None))


def scopes(results: GridResults, condition: Condition) -> Iterator[tuple[str, str]]:
    """Models and benchmarks of the rows beside the one over all: each, and each cell."""
    if condition.of not in PER_QUESTION or condition.statistic != "mean" or condition.less is not None:
        return
    benchmarks = [name for name in results.grid.benchmarks if name in (condition.benchmarks or [name])]
    for model in (*results.grid.models, ALL):
        for benchmark in (*benchmarks, ALL):
            if (model, benchmark) != (ALL, ALL):
                yield model, benchmark


def in_scope(rows: pd.DataFrame, model: str, benchmark: str) -> pd.DataFrame:
    """The rows of a model and a benchmark, or of all."""
    rows = rows if model == ALL else rows[rows["model"] == model]
    return rows if benchmark == ALL else rows[rows["benchmark"] == benchmark]


def figures(condition: Condition, one: Found) -> Row:
    """Columns of a condition's figure."""
    interval = one.interval
    return {
        "figure": condition.figure,
        **{"estimate": interval.estimate, "low": interval.low, "high": interval.high},
        "side": "above" if condition.below is None else "below",
        "threshold": condition.threshold,
        **{"n": interval.n, "over": interval.over, "p": one.p, "on_claimed_side": one.on_claimed_side},
    }


def claim_rows(results: GridResults, name: str, claim: Claim) -> list[Row]:
    """For each condition a row over all models and benchmarks, then a row for each model, benchmark and cell."""
    confidence = results.grid.tables.confidence
    rows: list[Row] = []
    every = []
    for number, condition in enumerate(claim.conditions, start=1):
        observed = observations(results, claim.comparison, condition)
        place: Row = {
            "claim": name,
            "says": claim.says,
            "family": claim.family,
            "condition": number,
            "confidence": confidence,
        }
        whole = found(estimate(observed, condition), condition, confidence)
        every.append(whole)
        few, many = (whole or NOT_FOUND).settled_by
        settled: Row = {"replicates_to_settle": few, "with_more_questions": many}
        if whole is not None and whole.components is not None:
            settled |= {VARIANCE[name]: value for name, value in vars(whole.components).items()}
        rows.append({**place, "model": ALL, "benchmark": ALL, **figures(condition, whole or NOT_FOUND), **settled})
        if observed.empty:
            continue
        cells = []
        for model, benchmark in scopes(results, condition):
            one = found(estimate(in_scope(observed, model, benchmark), condition), condition, confidence)
            shown = one or NOT_FOUND
            alone = judged([one], confidence)
            row = {**place, "model": model, "benchmark": benchmark, **figures(condition, shown)}
            cells.append(row | {"verdict": alone.verdict, "p_claim": alone.p})
        single = [cell for cell in cells if ALL not in (cell["model"], cell["benchmark"])]
        for cell, p in zip(single, holm([cell["p_claim"] for cell in single]), strict=True):
            cell |= {"p_holm": p, "verdict_holm": corrected(cell, not cell["on_claimed_side"], p, confidence)}
        rows += cells
    overall = judged(every, confidence)
    for row in rows:
        if row["model"] == row["benchmark"] == ALL:
            row |= {"verdict": overall.verdict, "p_claim": overall.p}
    return rows


def corrected(row: Row, against: bool, p: float, confidence: float) -> Verdict:
    """The verdict by an adjusted p-value; what was not measured stays so."""
    return "not measured" if row["verdict"] == "not measured" else verdict(against, p, confidence)


def rows(results: GridResults) -> pd.DataFrame:
    """Rows of all claims; Holm's correction is over the claims of a family."""
    claims, confidence = results.grid.claims, results.grid.tables.confidence
    by_claim = {name: claim_rows(results, name, claim) for name, claim in claims.items()}
    for family in dict.fromkeys(claim.family for claim in claims.values()):
        of_family = [name for name, claim in claims.items() if claim.family == family]
        for name, p in zip(of_family, holm([by_claim[name][0]["p_claim"] for name in of_family]), strict=True):
            whole = [row for row in by_claim[name] if row["model"] == row["benchmark"] == ALL]
            against = not all(row["on_claimed_side"] for row in whole)
            for row in whole:
                row |= {"p_holm": p, "verdict_holm": corrected(row, against, p, confidence)}
    return pd.DataFrame([row for part in by_claim.values() for row in part], columns=COLUMNS)


def over_all(frame: pd.DataFrame) -> "pd.Series[bool]":
    """Which rows are over all models and benchmarks."""
    return (frame["model"] == ALL) & (frame["benchmark"] == ALL)


def conditions(frame: pd.DataFrame) -> pd.DataFrame:
    """One row a condition, over all models and benchmarks, with the verdicts of its cells as text."""
    whole = frame[over_all(frame)]
    cells = frame[(frame["model"] != ALL) & (frame["benchmark"] != ALL)]
    texts = []
    for row in whole.to_dict("records"):
        mine = cells[(cells["claim"] == row["claim"]) & (cells["condition"] == row["condition"])]
        counts = Counter(mine["verdict"])
        texts.append(", ".join(f"{counts[word]} {word}" for word in counts) or NOTHING)
    return whole.assign(cells=texts)


def once(name: str, title: str) -> Column:
    """A column of the claim, shown in the row of its first condition."""
    return Column(
        title,
        lambda shown: [
            value if number == 1 else "" for value, number in zip(shown[name], shown["condition"], strict=True)
        ],
    )


def rule(row: Row) -> str:
    """The condition's rule as text."""
    return f"{row['side']} {row['threshold']:g}"


def settled_by(row: Row) -> str:
    """How many replicates would probably decide an undecided claim."""
    if row["verdict"] != "undecided" or np.isnan(row["estimate"]):
        return NOTHING
    if row["on_claimed_side"] and row["p"] <= 1 - row["confidence"]:  # another condition is open
        return NOTHING
    few, many = row["replicates_to_settle"], row["with_more_questions"]
    if np.isnan(few):
        return NOTHING if np.isnan(many) else f"{many:.0f} replicates in all, with {MORE_QUESTIONS} times the questions"
    with_more = f" ({many:.0f} with {MORE_QUESTIONS} times the questions)" if many < few else ""
    return f"{few:.0f} replicates in all{with_more}"


def notes(results: GridResults, frame: pd.DataFrame) -> Iterable[str]:
    """What the verdicts mean."""
    if frame.empty:
        yield "The config names no claims."
        return
    grid = results.grid
    sizes = {"model": grid.models, "benchmark": grid.benchmarks, "replicate": grid.replicates}
    models, benchmarks, replicates = (counted(len(names), noun) for noun, names in sizes.items())
    yield (
        f"Verdicts by {grid.tables.confidence:.0%} intervals over other training runs and other questions, from "
        f"{models}, {benchmarks} and {replicates} (docs/statistics.md). Supported: each interval is on the claimed "
        "side. Contradicted: one is on the other side. Not measured: this grid lacks a figure. One replicate decides "
        "nothing about other runs."
    )
    yield (
        "With Holm's correction: the verdict if a wrong one among all claims of its family "
        f"({', '.join(frame['family'].unique())}) may occur in {1 - grid.tables.confidence:.0%} of cases. Cells: "
        "verdicts of single models and benchmarks without correction; claims.csv has each. To settle: how many "
        "replicates would find the observed difference with a probability of 80%, if it is the true one."
    )


CLAIMS = Table(
    "claims",
    "Claims",
    rows,
    [
        once("says", "claim"),
        once("verdict", "verdict"),
        once("verdict_holm", "with Holm's correction"),
        copied("figure"),
        Column("estimate", lambda shown: with_interval(shown, "estimate")),
        Column("supported if", lambda shown: [rule(row) for row in shown.to_dict("records")]),
        copied("cells"),
        Column("to settle", lambda shown: [settled_by(row) for row in shown.to_dict("records")]),
    ],
    [notes],
    layout=conditions,
)
