"""Stage `tables`: make all tables from stored judgments, grades, scores and metrics.

headline       adjusted win rates of the headline comparison
win_rates      adjusted win rates of all comparisons, with figures to check them by
scores         reward, gold reward, KL, length, EOS share, distinct-n
improvements   differences in reward and gold reward, paired by question
grades         single-answer grades
soup           soups between two SFT models
reward_model   accuracy of the reward models
training       the last quarter of each training run
data           rows used and left out of each data set
overlap        benchmark questions among the training prompts
runs           commits, versions and machines of the runs
"""

import argparse
import json
import math
from pathlib import Path

import pandas as pd

from eval.benchmarks.base import MISSING_REASONS, format_counts
from eval.protocols.templates import OURS
from eval.statistics import length_control
from eval.tables import aggregate, collect, run_versions
from eval.tables.formats import number, with_control, with_interval, write_table
from eval.tables.grid import ALL_MODELS, Grid, measured_files
from eval.tables.training_data import write_data
from salsa.runtime.outputs import output_folder
from salsa.runtime.provenance import Run, run_file
from salsa.runtime.settings import load_settings


def interval_note(grid: Grid) -> str:
    """What the brackets mean."""
    return (
        f"Brackets: {grid.tables.confidence:.0%} intervals over questions (BCa bootstrap, {grid.tables.resamples} "
        "resamples); n counts questions. They do not include the variation between training runs."
    )


def judge_note(results: Path, grid: Grid, folder: str) -> str:
    """Which judge; for hosted judges also when it was called and which model id the endpoint reported."""
    if not grid.dated:
        return f"Judge: {grid.judge}."
    files = [path for name, path in measured_files(results, grid).items() if name.startswith(f"{folder}/")]
    runs = [json.loads(run_file(path).read_text()) for path in files if run_file(path).exists()]
    dates = sorted(run[key][:10] for run in runs for key in ("first_call", "last_call") if run.get(key))
    names = sorted({name for run in runs for name in run.get("judge_reports", ())} - {grid.judge})
    called = f", called {' to '.join(dict.fromkeys((dates[0], dates[-1])))}" if dates else ""
    return f"Judge: {grid.judge}{called}{', reported as ' if names else ''}{', '.join(names)}."


def template_note(judged: pd.DataFrame, benchmarks: list[str]) -> str:
    """Which templates each benchmark was judged with, from the judgments or grades."""
    by_source: dict[str, list[str]] = {}
    for benchmark in benchmarks:
        names = judged.loc[judged["benchmark"] == benchmark, "template"]
        for source in sorted({name.rpartition(":")[0] for name in names}):
            by_source.setdefault(source, []).append(benchmark)
    parts = [f"{', '.join(names)}: {'our own' if source == OURS else source}" for source, names in by_source.items()]
    return f"Judge templates: {'; '.join(parts) or 'none'}."


def shown_win_rates(raw: pd.DataFrame, grid: Grid) -> pd.DataFrame:
    """The columns of win_rates.md."""
    shown = pd.DataFrame({"comparison": raw["comparison"], "model": raw["model"], "benchmark": raw["benchmark"]})
    shown["adjusted win rate"] = with_interval(raw, "win_rate")
    shown["n"] = raw["n"]
    shown["length-controlled"] = with_control(raw)
    shown["win / tie / loss"] = [
        f"{w} / {t} / {lo}" for w, t, lo in zip(raw["wins"], raw["ties"], raw["losses"], strict=True)
    ]
    shown["pairs of runs"] = [
        f"{n}: {number(low)} to {number(high)}"
        for n, low, high in zip(raw["pairs"], raw["pair_low"], raw["pair_high"], strict=True)
    ]
    shown["consistent"] = [number(value) for value in raw["consistency"]]
    shown["first place won"] = [number(value) for value in raw["first_position"]]
    shown["coverage"] = coverage(raw)
    return shown


def coverage(raw: pd.DataFrame) -> list[str]:
    """Share with a verdict, marked if it is below the floor, and the reasons for missing verdicts."""
    return [
        number(row["coverage"])
        + ("" if row["enough_coverage"] else " (too low)")
        + (f": {why}" if (why := format_counts(row)) else "")
        for row in raw.to_dict("records")
    ]


def imitation_note(raw: pd.DataFrame, columns: list[str], table: str) -> list[str]:
    """Note on answers that imitate a verdict or a judge prompt."""
    shares = raw[columns].max(axis=None)
    if math.isnan(shares):
        return []
    return [
        "Answers that contain a verdict in the judge's form or a marker of its prompt (imitating): "
        + (f"up to {shares:.1%} of a cell; {table}.csv has the share of each cell." if shares else "none.")
    ]


def missing_note(raw: pd.DataFrame, what: str) -> list[str]:
    """Note on missing verdicts by reason, with an explanation of the reasons; none if no verdict is missing."""
    sums = raw[list(MISSING_REASONS)].sum()
    if not sums.any():
        return []
    return [
        f"{what} without a verdict: {format_counts(sums)}. Unanswered: the question does not fit the policy's context; "
        "too long: the prompt does not fit the judge's context; refused: the judge or its endpoint refused; failed: "
        "the endpoint gave no reply or no text (rerun the stage to ask again); cut: the reply reached judge.max_tokens "
        "(raise it to ask again); unparsed: the reply has no verdict. Prompts are never truncated."
    ]


def write_judged(folder: Path, results: Path, grid: Grid, draw: aggregate.Resampling) -> None:
    """Write win_rates, headline and grades."""
    judgments = collect.judgments(results, grid)
    raw = aggregate.win_rates(judgments, grid, draw)
    length_control.warn(raw, ("comparison", "model", "benchmark"))
    notes = [
        judge_note(results, grid, "judgments"),
        template_note(judgments, grid.benchmarks),
        interval_note(grid),
        "Adjusted win rate: (wins + ties / 2) / n of the first method; a strong Arena-Hard verdict counts three "
        "times. Length-controlled: the win rate at equal answer lengths by AlpacaEval 2's model, with limits from "
        "errors clustered by question; a dash if one side is always longer; far off: so different from the raw rate "
        "that length or gaming may have decided. Pairs of runs: smallest and largest rate of a single pair of RL "
        "seeds. Consistent: share of matches in which both orders agree. First place won: 0.5 without position bias. "
        "all: judgments of all models together, clustered by question.",
    ]
    shown = shown_win_rates(raw, grid)
    cells = raw[raw["model"] != ALL_MODELS]
    notes += imitation_note(cells, ["imitating_a", "imitating_b"], "win_rates")
    write_table(folder, "win_rates", raw, shown, [*notes, *missing_note(cells, "Games")])
    head = raw["comparison"] == grid.tables.headline
    columns = ["comparison", "model", "benchmark", "adjusted win rate", "n", "pairs of runs"]
    raw = raw[head].assign(judge=grid.judge, confidence=grid.tables.confidence)
    notes += missing_note(cells[cells["comparison"] == grid.tables.headline], "Games")
    write_table(folder, "headline", raw, shown[head][columns], notes)
    stored = collect.grades(results, grid)
    grades = aggregate.grade_table(stored, grid, draw)
    shown = grades[["model", "benchmark", "method", "turn"]].copy()
    shown["rating"] = with_interval(grades, "rating", digits=2)
    shown["n"] = grades["n"]
    shown["coverage"] = coverage(grades)
    notes = [judge_note(results, grid, "grades"), template_note(stored, grid.graded), interval_note(grid)]
    notes.append("Ratings range from 1 to 10.")
    notes += imitation_note(grades, ["imitating"], "grades")
    notes += missing_note(grades[grades["turn"] == "all"], "Answers")
    write_table(folder, "grades", grades, shown, notes)


def write_scored(folder: Path, results: Path, grid: Grid, draw: aggregate.Resampling) -> None:
    """Write scores and improvements."""
    scores = collect.scores(results, grid)
    raw = aggregate.score_table(scores, grid, draw)
    wide = raw.assign(text=with_interval(raw, "mean")).pivot_table(
        index=["model", "benchmark", "method"], columns="measure", values="text", aggfunc="first", sort=False
    )
    wide = wide[[measure for measure in aggregate.MEASURES if measure in wide]].reset_index().fillna("–")
    counts = raw.groupby(["model", "benchmark", "method"], sort=False)[["n", "seeds"]].first().reset_index()
    wide = wide.merge(counts, on=["model", "benchmark", "method"])
    notes = [
        interval_note(grid),
        "reward: learned reward, normalised to mean 0 and std 1 on SFT 1's samples. kl_*: nats per response, summed "
        "over its tokens. tokens: length of the response. ended: share with EOS. seeds: number of training runs.",
    ]
    write_table(folder, "scores", raw, wide, notes)
    raw = aggregate.improvements(scores, grid, draw)
    shown = raw[["comparison", "model", "benchmark", "measure"]].copy()
    shown["difference"] = with_interval(raw, "difference")
    shown["n"] = raw["n"]
    write_table(
        folder, "improvements", raw, shown, [interval_note(grid), "First method minus the second, paired by question."]
    )


def checkpoint_label(path: Path) -> str:
    """The checkpoint's name: sft-1, or a soup by its weights."""
    return f"sft-{path.name}" if path.parent.parent.name == "sft" else path.name


def write_trained(folder: Path, results: Path, grid: Grid) -> None:
    """Write soup, reward_model and training."""
    soup = collect.soups(results, grid)
    shown = pd.DataFrame({"model": soup["model"], "alpha": [number(value, 2) for value in soup["alpha"]]})
    shown["checkpoint"] = [checkpoint_label(Path(path)) for path in soup["checkpoint"]]
    for measure in ("reward", "gold"):
        if not soup[measure].isna().all():
            errors = zip(soup[measure], soup[f"{measure}_se"], strict=True)
            shown[measure] = [f"{number(value)} ± {number(error)}" for value, error in errors]
    shown["SFT loss"] = [number(value, 4) for value in soup["sft_loss"]]
    shown["KL from SFT 1"] = [number(value) for value in soup["kl_sft"]]
    shown["tokens"] = [number(value, 1) for value in soup["tokens"]]
    shown["n"] = soup["samples"]
    soup_notes = [
        "± is one standard error over prompts. KL: from the soup to SFT 1 on the soup's samples, in nats per response. "
        "tokens: mean length of the samples. n: number of samples."
    ]
    write_table(folder, "soup", soup, shown, soup_notes)
    cards = collect.cards(results, grid)
    shown = pd.DataFrame({"model": cards["model"], "pairs": cards["pairs_test"]})
    shown["accuracy"] = with_interval(cards, "accuracy", "accuracy_low", "accuracy_high")
    if not cards["accuracy_gold"].isna().all():
        shown["pairs by gold"] = cards["pairs_gold"]
        shown["accuracy by gold"] = with_interval(cards, "accuracy_gold", "accuracy_gold_low", "accuracy_gold_high")
    card_notes = ["Held-out pairs without ties, with Wilson's 95% intervals. By gold: agreement with the gold reward."]
    write_table(folder, "reward_model", cards, shown, card_notes)
    steps = aggregate.training_table(collect.training(results, grid))
    columns = [
        "reward",
        "gold",
        "kl_ref_k1",
        "kl_ref_k3",
        "kl_sft_k1",
        "entropy",
        "length",
        "eos_share",
        "explained_variance",
    ]
    shown = steps[["model", "policy"]].copy()
    for name in columns:
        if name in steps:
            shown[name] = [number(float(value)) for value in steps[name]]
    write_table(folder, "training", steps, shown, ["Means over the last quarter of the steps; see docs/metrics.md."])


def write_runs(folder: Path, found: run_versions.Found) -> None:
    """Write runs."""
    raw = run_versions.table(found)
    kinds = len(found.get("processor", {}))
    notes = [
        f"The runs behind the tables, on {kinds} kind{'s' * (kinds != 1)} of processor. Besides the machines, only "
        "properties that differ between runs are shown. Another processor, other vector instructions or another number "
        "of threads round sums differently, and training amplifies that: every figure changes, as with another seed. "
        "See docs/howto-resume.md."
    ]
    write_table(folder, "runs", raw, run_versions.shown(raw), notes)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--results", type=Path, required=True, help="the grid's results folder")
    parser.add_argument("--settings", required=True, help="a Grid (eval/tables/grid.py): JSON or FILE.yaml")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)


def run(arguments: argparse.Namespace) -> None:
    grid = load_settings(arguments.settings, Grid)
    inputs = measured_files(arguments.results, grid)
    record = Run("tables", grid.model_dump(mode="json"), inputs, {"seed": arguments.seed})
    draw = aggregate.Resampling(grid.tables.confidence, grid.tables.resamples, arguments.seed)
    with output_folder(arguments.out, record) as folder:
        write_judged(folder, arguments.results, grid, draw)
        write_scored(folder, arguments.results, grid, draw)
        write_trained(folder, arguments.results, grid)
        write_data(folder, arguments.results, grid)
        found = run_versions.made_with(inputs.values())
        counts = {name: {value: len(runs) for value, runs in values.items()} for name, values in found.items()}
        record.extra = {"made_with": counts}
        write_runs(folder, found)
