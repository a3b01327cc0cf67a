"""Tables of verdicts: win_rates, headline, grades."""

import json
import math
from collections.abc import Iterable

import pandas as pd

from eval.benchmarks.base import MISSING_REASONS, format_counts
from eval.grid import aggregate
from eval.grid.layout import ALL_MODELS, measured_files
from eval.grid.results import GridResults
from eval.protocols.templates import OURS
from eval.tables.formats import number, with_control
from eval.tables.table import Column, Notes, Table, copied, interval
from salsa.config.replicates import shared_sft_runs
from salsa.runtime.provenance import run_file


def interval_note(results: GridResults, rows: pd.DataFrame) -> Iterable[str]:
    """What the brackets mean."""
    level = f"{results.grid.tables.confidence:.0%} intervals"
    if "runs and questions" in set(rows["over"]):
        yield (
            f"Brackets: {level} over training runs and questions, from {len(results.grid.replicates)} replicates that "
            "answer the same questions (docs/statistics.md); n counts questions."
        )
    else:
        yield (
            f"Brackets: {level} over questions only: with one replicate they do not include the variation between "
            "training runs. n counts questions."
        )


def overlap_note(results: GridResults, rows: pd.DataFrame) -> Iterable[str]:
    """Which replicates share SFT runs; nothing if none do."""
    for a, b, seeds in shared_sft_runs(results.grid.replicates):
        runs = f"SFT run{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
        yield f"Replicates {a} and {b} share {runs}: they are not independent."


def judge_note(folder: str) -> Notes:
    """Which judge; for hosted judges also when it was called and which model id the endpoint reported."""

    def note(results: GridResults, rows: pd.DataFrame) -> Iterable[str]:
        grid = results.grid
        if not grid.dated:
            yield f"Judge: {grid.judge}."
            return
        files = [path for name, path in measured_files(results.folder, grid).items() if name.startswith(f"{folder}/")]
        runs = [json.loads(run_file(path).read_text()) for path in files if run_file(path).exists()]
        dates = sorted(run[key][:10] for run in runs for key in ("first_call", "last_call") if run.get(key))
        names = sorted({name for run in runs for name in run.get("judge_reports", ())} - {grid.judge})
        called = f", called {' to '.join(dict.fromkeys((dates[0], dates[-1])))}" if dates else ""
        yield f"Judge: {grid.judge}{called}{', reported as ' if names else ''}{', '.join(names)}."

    return note


def template_note(judged: pd.DataFrame, benchmarks: list[str]) -> str:
    """Which templates each benchmark was judged with, from the judgments or grades."""
    by_source: dict[str, list[str]] = {}
    for benchmark in benchmarks:
        names = judged.loc[judged["benchmark"] == benchmark, "template"]
        for source in sorted({name.rpartition(":")[0] for name in names}):
            by_source.setdefault(source, []).append(benchmark)
    parts = [f"{', '.join(names)}: {'our own' if source == OURS else source}" for source, names in by_source.items()]
    return f"Judge templates: {'; '.join(parts) or 'none'}."


def imitation_note(rows: pd.DataFrame, columns: list[str], table: str) -> list[str]:
    """Note on answers that imitate a verdict or a judge prompt."""
    shares = rows[columns].max(axis=None)
    if math.isnan(shares):
        return []
    return [
        "Answers that contain a verdict in the judge's form or a marker of its prompt (imitating): "
        + (f"up to {shares:.1%} of a cell; {table}.csv has the share of each cell." if shares else "none.")
    ]


def missing_note(rows: pd.DataFrame, what: str) -> list[str]:
    """Note on missing verdicts by reason, with an explanation of the reasons; none if no verdict is missing."""
    sums = rows[list(MISSING_REASONS)].sum()
    if not sums.any():
        return []
    return [
        f"{what} without a verdict: {format_counts(sums)}. Unanswered: the question does not fit the policy's context; "
        "too long: the prompt does not fit the judge's context; refused: the judge or its endpoint refused; failed: "
        "the endpoint gave no reply or no text (rerun the stage to ask again); cut: the reply reached judge.max_tokens "
        "(raise it to ask again); unparsed: the reply has no verdict. Prompts are never truncated."
    ]


def single_models(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of single models, without those of all models together."""
    return rows[rows["model"] != ALL_MODELS]


def coverage(rows: pd.DataFrame) -> list[str]:
    """Share with a verdict, marked if it is below the floor, and the reasons for missing verdicts."""
    return [
        number(row["coverage"])
        + ("" if row["enough_coverage"] else " (too low)")
        + (f": {why}" if (why := format_counts(row)) else "")
        for row in rows.to_dict("records")
    ]


COMPARISON, MODEL, BENCHMARK, N = map(copied, ("comparison", "model", "benchmark", "n"))
WIN_RATE = interval("adjusted win rate", "win_rate")
PAIRS = Column(
    "pairs of runs",
    lambda rows: [
        f"{n}: {number(low)} to {number(high)}"
        for n, low, high in zip(rows["pairs"], rows["pair_low"], rows["pair_high"], strict=True)
    ],
)
WIN_RATE_NOTES = (
    judge_note("judgments"),
    lambda results, rows: [template_note(results.judgments, results.grid.benchmarks)],
    interval_note,
    overlap_note,
    "Adjusted win rate: (wins + ties / 2) / n of the first method; a strong Arena-Hard verdict counts three "
    "times. Length-controlled: the win rate at equal answer lengths by AlpacaEval 2's model, with limits "
    "over the same; a dash if one side is always longer; far off: so different from the raw rate "
    "that length or gaming may have decided. Pairs of runs: smallest and largest rate of a single pair of RL "
    "seeds. Consistent: share of matches in which both orders agree. First place won: 0.5 without position bias. "
    "all: judgments of all models together.",
    lambda results, rows: imitation_note(single_models(results.win_rates), ["imitating_a", "imitating_b"], "win_rates"),
    lambda results, rows: missing_note(single_models(rows), "Games"),
)


def headline_rows(results: GridResults) -> pd.DataFrame:
    """The headline comparison, with what the terminal and the report say of it."""
    grid, rates = results.grid, results.win_rates
    rows = rates[rates["comparison"] == grid.tables.headline]
    return rows.assign(judge=grid.judge, confidence=grid.tables.confidence)


HEADLINE = Table(
    "headline",
    "The headline comparison",
    headline_rows,
    [COMPARISON, MODEL, BENCHMARK, WIN_RATE, N, PAIRS],
    WIN_RATE_NOTES,
)
WIN_RATES = Table(
    "win_rates",
    "All comparisons",
    lambda results: results.win_rates,
    [
        *(COMPARISON, MODEL, BENCHMARK, WIN_RATE, N),
        Column("length-controlled", with_control),
        Column(
            "win / tie / loss",
            lambda rows: [
                f"{win} / {tie} / {loss}"
                for win, tie, loss in zip(rows["wins"], rows["ties"], rows["losses"], strict=True)
            ],
        ),
        PAIRS,
        Column("consistent", lambda rows: [number(value) for value in rows["consistency"]]),
        Column("first place won", lambda rows: [number(value) for value in rows["first_position"]]),
        Column("coverage", coverage),
    ],
    WIN_RATE_NOTES,
)
GRADES = Table(
    "grades",
    "Single-answer grades",
    lambda results: aggregate.grade_table(results.grades, results.grid),
    [
        *(MODEL, BENCHMARK, copied("method"), copied("turn")),
        interval("rating", "rating", digits=2),
        N,
        Column("coverage", coverage),
    ],
    [
        judge_note("grades"),
        lambda results, rows: [template_note(results.grades, results.grid.graded)],
        interval_note,
        "Ratings range from 1 to 10.",
        lambda results, rows: imitation_note(rows, ["imitating"], "grades"),
        lambda results, rows: missing_note(rows[rows["turn"] == "all"], "Answers"),
    ],
)
