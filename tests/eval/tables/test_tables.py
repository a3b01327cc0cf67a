"""Tables, figures, report and terminal table from an invented results folder, through the real commands."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pandas as pd
import pytest

from eval.figures.style import colours_of
from eval.grid.layout import Grid
from eval.grid.results import GridResults
from eval.report.headline import read_table, sentence
from eval.report.page import SCRIPT, markdown_table
from eval.tables import claimed as claims_table
from eval.tables.formats import latex, markdown, number, with_interval
from eval.tables.judged import judge_note, overlap_note
from eval.tables.table import Table, copied, figure, has, interval, only_if
from salsa.runtime.jsonl import read_jsonl, write_jsonl
from tests.eval.synthetic import GRID, QUESTIONS, REPLICATED, THREE, write_results

ROOT = Path(__file__).parents[3]


@pytest.fixture
def results(tmp_path):
    return write_results(tmp_path / "results")


def make(command, results, stage, out, *more):
    settings = GRID.model_dump_json(exclude_none=True)
    arguments = ["--results", results, "--settings", settings, *more, "--out", out]
    return command("eval", stage, *arguments)


def tables(command, results, out=None):
    status, said = make(command, results, "tables", out or results / "tables")
    assert status == 0, said
    return results / "tables"


def test_headline_is_the_adjusted_win_rate(results, command):
    folder = tables(command, results)
    table = pd.read_csv(folder / "headline.csv")
    assert list(table["model"].unique()) == ["one-mini", "two_mini", "all"]
    assert list(table["benchmark"].unique()) == GRID.benchmarks
    assert (table["n"] == QUESTIONS).all()
    for _, row in table[table["model"] != "all"].iterrows():
        found = read_jsonl(results / "judgments" / row["model"] / row["benchmark"] / "salsa_vs_ppo.jsonl")
        wins, ties = (sum(r["points"] == p for r in found) for p in (1.0, 0.5))
        assert row["win_rate"] == pytest.approx((wins + ties / 2) / len(found), abs=1e-6)
        assert row["low"] < row["win_rate"] < row["high"]
        assert row["pair_low"] <= row["win_rate"] <= row["pair_high"]
        assert row["consistency"] == pytest.approx(sum(r["consistent"] for r in found) / len(found), abs=1e-6)
        firsts = [g["order"][0] == g["outcome"] for r in found for g in r["games"] if g["outcome"] != "tie"]
        assert row["first_position"] == pytest.approx(sum(firsts) / len(firsts), abs=1e-6)


def test_every_table_has_three_formats_and_repeats(results, command, tmp_path):
    folder = tables(command, results)
    tables(command, results, tmp_path / "again")
    names = ["headline", "win_rates", "scores", "improvements", "grades", "soup", "reward_model", "training"]
    for name in names:
        for form in ("csv", "md", "tex"):
            text = (folder / f"{name}.{form}").read_text()
            assert text == (tmp_path / f"again/{name}.{form}").read_text()
            assert not re.search(r"\bnan\b", text.lower())
    scores = pd.read_csv(folder / "scores.csv")
    assert set(scores["method"]) == {"sft", "ppo", "salsa"}
    assert (scores["low"] <= scores["mean"] + 1e-9).all()
    assert "sft-3" in (folder / "soup.md").read_text()
    assert json.loads((folder / "run.json").read_text())["inputs"]


def test_differences_are_paired_by_question(results, command):
    table = pd.read_csv(tables(command, results) / "improvements.csv")
    row = table[(table["comparison"] == "ppo_vs_sft") & (table["measure"] == "gold")].iloc[0]
    found = {}
    for policy in ("sft", "ppo-s1", "ppo-s2"):
        rows = read_jsonl(results / f"scores/one-mini/{policy}/mt_bench.jsonl")
        found[policy] = sum(r["gold"] for r in rows) / len(rows)
    expected = (found["ppo-s1"] + found["ppo-s2"]) / 2 - found["sft"]
    assert row["difference"] == pytest.approx(expected, abs=1e-5)
    assert 0 < row["low"] < row["difference"] < row["high"]


def test_differences_over_all_models_and_benchmarks_are_those_of_the_claims(results, command):
    """The table and the claims compute them apart."""
    folder = tables(command, results)
    table, claims = pd.read_csv(folder / "improvements.csv"), pd.read_csv(folder / "claims.csv")
    for claim, condition, measure in (
        ("earns_more_reward", 1, "reward"),
        ("earns_more_reward", 2, "reward_held_out"),
        ("is_better_in_truth", 1, "gold"),
        ("deviates_further", 1, "kl_sft"),
    ):
        row = table[(table["comparison"] == "salsa_vs_ppo") & (table["measure"] == measure)]
        cells = claims[(claims["claim"] == claim) & (claims["condition"] == condition)]
        both = row.merge(cells, on=["model", "benchmark"], suffixes=("", "_claimed"))
        assert len(both) == len(row) == 3 * 4
        for name, claimed in (("difference", "estimate"), ("low", "low_claimed"), ("high", "high_claimed")):
            assert both[name].to_numpy() == pytest.approx(both[claimed].to_numpy(), abs=2e-6)


def test_missing_judgments_are_reported(results, command):
    path = results / "judgments/one-mini/mt_bench/salsa_vs_ppo.jsonl"
    rows = read_jsonl(path)
    for row in rows[:24]:
        row |= {"points": None, "weight": 0, "consistent": None, "games": []}
    write_jsonl(path, rows)
    folder = tables(command, results)
    row = pd.read_csv(folder / "headline.csv").iloc[0]
    assert row["coverage"] == pytest.approx(0.5)
    assert row["n"] == 12
    assert not row["enough_coverage"]
    assert "0.500 (too low): 48 unanswered" in (folder / "win_rates.md").read_text()
    assert "Games without a verdict: 48 unanswered. Unanswered:" in (folder / "headline.md").read_text()
    assert "without a verdict" not in (folder / "grades.md").read_text()


def test_replicates_that_share_sft_runs_are_named(tmp_path):
    def notes(replicates) -> list[str]:
        grid = Grid.model_validate({**GRID.model_dump(), "replicates": replicates})
        return list(overlap_note(GridResults(tmp_path, grid), None))

    third = {"sft": {"sft-1": 4, "sft-2": 1}, "overlapping": True}
    assert notes(THREE) == []
    assert notes({**THREE, "r3": third}) == [
        "Replicates r1 and r3 share SFT run 1: they are not independent.",
        "Replicates r2 and r3 share SFT run 4: they are not independent.",
    ]


def test_verdicts_name_the_size_of_the_grid_and_its_families(tmp_path):
    grid = Grid.model_validate({**GRID.model_dump(), "replicates": THREE, "benchmarks": GRID.benchmarks[:1]})
    results = GridResults(tmp_path, grid)
    size, correction = claims_table.notes(results, pd.DataFrame({"family": ["rewards", "soups", "rewards"]}))
    assert "from 2 models, 1 benchmark and 3 replicates" in size
    assert "its family (rewards, soups)" in correction


def test_hosted_judge_has_dates_and_reported_model_in_the_tables(results):
    for day, name in ((3, "j-0613"), (1, "j-0301")):
        calls = {"first_call": f"2026-11-0{day}T09:00:00Z", "last_call": f"2026-11-0{day}T23:00:00Z"}
        path = results / f"judgments/one-mini/{GRID.benchmarks[day // 2]}/salsa_vs_ppo.run.json"
        path.write_text(json.dumps({**calls, "judge_reports": [name]}))
    hosted = GRID.model_copy(update={"judge": "j", "dated": True})
    expected = "Judge: j, called 2026-11-01 to 2026-11-03, reported as j-0301, j-0613."

    def note(grid, folder: str) -> str:
        [text] = judge_note(folder)(GridResults(results, grid), None)
        return text

    assert note(hosted, "judgments") == expected
    assert note(hosted, "grades") == "Judge: j."
    assert note(GRID, "judgments") == "Judge: gold-judge (gold judge)."


def test_cell_below_the_coverage_floor_fails_the_run_at_its_end(results, command):
    """For any comparison and for grades. Everything is written first, and the cells are named."""
    status, said = command("eval", "show", "--results", tables(command, results).parent, "--below-floor", "fail")
    assert (status, said) == (0, "")
    path = results / "judgments/two_mini/arena_hard/ppo_vs_sft.jsonl"
    rows = read_jsonl(path)
    write_jsonl(path, [{**row, **({"points": None, "weight": 0} if n < 3 else {})} for n, row in enumerate(rows)])
    path = results / "grades/one-mini/sft/mt_bench.jsonl"
    grades = [{**row, "outcome": "unparsed", "rating": None} for row in read_jsonl(path)]
    write_jsonl(path, grades)
    folder = tables(command, results)
    for table, share in (("win_rates", "0.938"), ("grades", "0.000")):
        assert f"{share} (too low)" in (folder / f"{table}.md").read_text()
    assert command("eval", "show", "--results", results, "--below-floor", "mark")[0] == 0
    status, said = command("eval", "show", "--results", results, "--below-floor", "fail")
    cells = "ppo_vs_sft two_mini arena_hard (93.8%), ppo_vs_sft all arena_hard (96.9%), "
    cells += f"one-mini mt_bench sft (0.0%: {len(grades)} unparsed)"
    assert status == 1 and said.startswith(
        f"error: 3 cells with too few verdicts: {cells}: {folder / 'win_rates.md'} lists"
    )
    assert "tables.below_floor: mark" in said


def test_single_question_explains_its_missing_interval():
    nan = float("nan")
    columns = {"x": [2.0, 2.0, nan], "low": [nan, 1.5, nan], "high": [nan, 2.5, nan], "n": [1, 2, 0]}
    expected = ["2.000 (one question: no interval)", "2.000 [1.500, 2.500]", "–"]
    assert with_interval(pd.DataFrame(columns), "x") == expected
    without_n = pd.DataFrame(columns).drop(columns="n")
    assert with_interval(without_n, "x")[0] == "2.000 [–, –]"


@pytest.mark.parametrize(
    "name", ["judgments/two_mini/arena_hard/ppo_vs_sft", "scores/one-mini/sft/mt_bench", "grades/one-mini/sft/mt_bench"]
)
def test_empty_file_is_named(results, command, name):
    path = results / f"{name}.jsonl"
    assert path.exists()
    path.write_text("")
    status, said = make(command, results, "tables", results / "tables")
    assert status == 1 and said.startswith(f"error: {path}: empty file: remove it and rerun python -m")


def test_ten_thousand_verdicts_in_ten_seconds_without_torch_or_a_key(tmp_path):
    """The command in its own process: two games per judgment, three replicates."""
    results = write_results(tmp_path / "results", questions=140, grid=REPLICATED)
    arguments = ["--results", results, "--settings", REPLICATED.model_dump_json(exclude_none=True)]
    program = (
        "import sys; from eval.__main__ import COMMANDS; from salsa.runtime.command import main\n"
        "sys.exit(main('eval', COMMANDS) or 9 * bool({'torch', 'openai'} & sys.modules.keys()))"
    )
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", program, "tables", *arguments, "--out", tmp_path / "out"], env=environment
    )
    assert done.returncode == 0
    assert time.perf_counter() - begin < 10
    table = pd.read_csv(tmp_path / "out/win_rates.csv")
    assert 2 * table[table["model"] != "all"]["judgments"].sum() == 10_080


def test_tables_name_the_judges_templates(results, command):
    path = results / "judgments/one-mini/arena_hard/salsa_vs_ppo.jsonl"
    rows = [{**row, "template": "mine.jsonl:arena-hard"} for row in read_jsonl(path)]
    write_jsonl(path, rows)
    tables(command, results)
    said = (results / "tables/win_rates.md").read_text()
    assert "Judge templates: mt_bench, arena_hard, ultrafeedback: our own; arena_hard: mine.jsonl." in said
    assert "Judge templates: mt_bench: prompts.jsonl." in (results / "tables/grades.md").read_text()


def test_missing_file_is_one_line(results, command):
    (results / "judgments/one-mini/mt_bench/salsa_vs_ppo.jsonl").unlink()
    status, said = make(command, results, "tables", results / "tables")
    assert status == 1
    assert "judgments/one-mini/mt_bench/salsa_vs_ppo.jsonl: no such file or folder: run the stage that makes it" in said
    assert not (results / "tables").exists()


def test_a_table_with_the_paths_of_thousands_of_runs_can_be_read(tmp_path):
    (tmp_path / "tables").mkdir()
    paths = ";".join(f"results/replicated/mini/judgments/llama-mini/mt_bench/{n}.jsonl" for n in range(5000))
    pd.DataFrame({"property": ["torch"], "paths": [paths]}).to_csv(tmp_path / "tables/runs.csv", index=False)
    assert read_table(tmp_path, "runs") == [{"property": "torch", "paths": paths}]


def test_show_prints_the_table(results, command, monkeypatch, capsys):
    import sys

    from salsa.runtime.command import main

    tables(command, results)
    monkeypatch.setattr(sys, "argv", ["eval", "show", "--results", str(results)])
    assert main("eval", {"show": ("eval.report.terminal", "")}) == 0
    said = capsys.readouterr().out
    assert "Adjusted win rate of salsa against ppo, judged by gold-judge (gold judge)" in said
    lines = said.splitlines()
    top = next(i for i, line in enumerate(lines) if line.startswith("model"))
    assert lines[top].split() == ["model", "benchmark", "adjusted", "win", "rate", "95%", "interval", "n"]
    first = pd.read_csv(results / "tables/headline.csv").iloc[0]
    assert lines[top + 1].split()[:3] == ["one-mini", "mt_bench", f"{first['win_rate']:.3f}"]
    assert lines[top + 1].endswith(f"[{first['low']:.3f}, {first['high']:.3f}]  {QUESTIONS}")
    for name in ("tables", "figures", "report.html"):
        assert str(results / name) in said
    shutil.rmtree(results / "tables")
    status, said = command("eval", "show", "--results", results)
    assert status == 1
    assert "make it with snakemake" in said


def test_figures_and_report(results, command, tmp_path):
    tables(command, results)
    for stage, out in (("figures", "figures"), ("report", "report.html")):
        assert make(command, results, stage, results / out)[0] == 0
    for name in ("win_rates", "improvements", "soup", "training", "reward_kl"):
        assert all((results / "figures" / f"{name}.{form}").stat().st_size for form in ("svg", "png"))
    page = (results / "report.html").read_text()
    assert r"\u003cscript\u003esalsa-s1\u003c/script\u003e" in page, "answers are data, never markup"
    assert page.count("<script") == 2 and f"<script>{SCRIPT.read_text()}</script>" in page, "the data and the script"
    assert "src=" not in page
    assert 'href="http' not in page
    assert "url(http" not in page
    assert page.count("<svg") == 5
    assert f"{2 * 2 * 2 * 3 * QUESTIONS} of {2 * 2 * 2 * 3 * QUESTIONS} judgments" in page
    assert "Salsa is better than ppo in " in page
    assert str(tmp_path) not in page
    assert "What is assumed" not in page
    values = json.dumps({"ppo.beta": 0.05, "ppo.gamma": 0.9, "ppo.new": None, "judge.retries": 6})
    more = ("--assumptions", ROOT / "config/assumptions.yaml", "--values", values)
    assert make(command, results, "report", tmp_path / "full.html", *more)[0] == 0
    page = (tmp_path / "full.html").read_text()
    assert "<summary>3 settings, 0 from the abstract</summary>" in page
    assert "<td>ppo.beta</td><td>0.05</td><td>assumed</td><td>summarize_from_feedback_details" in page
    assert "<td>ppo.gamma</td><td>0.9</td><td>changed</td><td>recorded: 1.0</td>" in page
    assert "<td>ppo.new</td><td>null</td><td>not recorded</td>" in page
    for svg in (results / "figures").glob("*.svg"):
        ElementTree.parse(svg)


@pytest.mark.parametrize(
    ("over", "limits", "pairs", "expected"),
    [
        ("runs and questions", (0.51, 0.6), (0.49, 0.58), "better than b in 1 of 2 cells, worse in 0, undecided in 0"),
        ("runs and questions", (0.4, 0.49), (0.41, 0.51), "better than b in 0 of 2 cells, worse in 1, undecided in 0"),
        ("runs and questions", (0.49, 0.6), (0.52, 0.58), "better than b in 0 of 2 cells, worse in 0, undecided in 1"),
        ("questions", (0.51, 0.6), (0.52, 0.58), "better than b in 1 of 2 cells, worse in 0, undecided in 0"),
        ("questions", (0.51, 0.6), (0.49, 0.58), "better than b in 0 of 2 cells, worse in 0, undecided in 1"),
        ("questions", (0.5, 0.6), (0.52, 0.58), "better than b in 0 of 2 cells, worse in 0, undecided in 1"),
        ("questions", (0.4, 0.49), (0.41, 0.43), "better than b in 0 of 2 cells, worse in 1, undecided in 0"),
        ("questions", (0.4, 0.49), (0.41, 0.51), "better than b in 0 of 2 cells, worse in 0, undecided in 1"),
    ],
)
def test_better_needs_the_interval_and_without_replicates_every_pair_on_one_side(over, limits, pairs, expected):
    row = {"model": "m", "a": "a", "b": "b", "confidence": "0.95", "win_rate": "0.5", "over": over}
    row |= dict(zip(("low", "high", "pair_low", "pair_high"), map(str, (*limits, *pairs)), strict=True))
    said = sentence([row, {**row, "win_rate": ""}, {**row, "model": "all"}])
    assert said.startswith(f"a is {expected} and not measured in 1 (95% interval")


def test_numbers_and_tables_as_text():
    assert number(0.12345) == "0.123"
    assert number(-0.0001) == "0.000"
    assert number(float("nan")) == number(None) == "–"
    assert number(7) == "7"
    frame = pd.DataFrame({"a_b": ["x|y", "50%"], "c": [1, 2]})
    text = markdown(frame, ["A note."])
    assert markdown_table(text) == (["a_b", "c"], [["x|y", "1"], ["50%", "2"]], ["A note."])
    assert r"a\_b & c \\" in latex(frame, ["A note."])
    assert r"50\% & 2 \\" in latex(frame, [])
    assert len(set(colours_of(["a", "b", "c"]).values())) == 3


def test_a_new_column_is_declared_in_one_place(tmp_path):
    """A declared table writes its rows as CSV, and its columns with their notes as Markdown and LaTeX."""
    rows = pd.DataFrame({"model": ["m", "n"], "rate": [0.5, 0.25], "low": [0.4, 0.2], "high": [0.6, 0.3]})
    columns = [copied("model"), interval("win rate", "rate"), figure("gold"), only_if(has("low"), copied("low", "LOW"))]
    table = Table(
        "new", "New", lambda results: rows, columns, ["A note.", lambda results, rows: [f"{len(rows)} rows."]]
    )
    table.write(tmp_path, results=None)
    assert (tmp_path / "new.csv").read_text().splitlines()[0] == "model,rate,low,high"
    titles, cells, notes = markdown_table((tmp_path / "new.md").read_text())
    assert titles == ["model", "win rate", "LOW"], "gold is not among the rows"
    assert cells[0] == ["m", "0.500 [0.400, 0.600]", "0.4"] and notes == ["A note.", "2 rows."]
    assert "win rate" in (tmp_path / "new.tex").read_text()
