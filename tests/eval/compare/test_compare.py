"""Two grids side by side: what their difference covers, and what the command says."""

import shutil
import sys

import numpy as np
import pandas as pd
import pytest
import yaml

from eval.compare.figures import difference_row, differences, sentence
from eval.grid.results import GridResults
from eval.statistics.intervals import rate_estimate
from salsa.__main__ import COMMANDS
from salsa.runtime.command import main
from tests.eval.synthetic import REPLICATED, write_results

CONFIDENCE = 0.95


def matches(rng: np.random.Generator, runs: float, asked: np.ndarray, rate: float = 0.5) -> pd.DataFrame:
    """Three models of three replicates; runs differ by this standard deviation, questions by `asked`."""
    shape = (3, 3, len(asked))
    values = rate + runs * rng.normal(size=(3, 3, 1)) + asked + 0.2 * rng.normal(size=shape)
    model, replicate, question = np.indices(shape).reshape(3, -1)
    names = {"model": model.astype(str), "replicate": replicate, "question_id": question, "benchmark": "x"}
    return pd.DataFrame({**names, "points": values.ravel(), "weight": 1.0})


def test_difference_of_equal_grids_is_covered():
    """Both grids ask the same questions, which differ much, and train anew."""
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        asked = 0.3 * rng.normal(size=20)
        row = difference_row([(1, matches(rng, 0.05, asked))], [(1, matches(rng, 0.05, asked))], CONFIDENCE)
        covered += row["low"] <= 0 <= row["high"]
    assert 0.91 <= covered / 200 <= 0.99


def test_noise_of_shared_questions_cancels():
    rng = np.random.default_rng(2)
    asked = 0.3 * rng.normal(size=20)
    a, b = (matches(rng, 0.0, asked) for _ in range(2))
    row = difference_row([(1, a)], [(1, b)], CONFIDENCE)
    alone = rate_estimate(a).interval(CONFIDENCE)
    assert row["high"] - row["low"] < 0.5 * (alone.high - alone.low)
    others = b.assign(question_id=b["question_id"] + 100)
    apart = difference_row([(1, a)], [(1, others)], CONFIDENCE)
    assert apart["high"] - apart["low"] > alone.high - alone.low


def grids(tmp_path, a_rate: float, b_rate: float, replicates: int = 3) -> tuple[GridResults, GridResults]:
    """Two grids of the same results, but for the win rates of SALSA against PPO."""
    names = list(REPLICATED.replicates)[:replicates]
    grid = REPLICATED.model_copy(update={"replicates": {name: REPLICATED.replicates[name] for name in names}})
    folder = write_results(tmp_path / "results", grid=grid)
    pair = []
    for number, rate in enumerate((a_rate, b_rate)):
        results = GridResults(folder, grid)
        rng = np.random.default_rng(number)
        results.judgments = results.judgments.assign(points=rng.binomial(40, rate, len(results.judgments)) / 40)
        pair.append(results)
    return pair[0], pair[1]


def test_planted_difference_is_found(tmp_path):
    rows = differences(*grids(tmp_path, 0.7, 0.5))
    first = rows.iloc[0]
    assert (first["claim"], first["model"], first["over"]) == ("wins_more_often", "all", "runs and questions")
    assert first["difference"] == pytest.approx(0.2, abs=0.03)
    said = sentence(rows, CONFIDENCE, 0.05)
    assert said.startswith("Different: adjusted win rate (wins_more_often) by 0.")
    cells = rows[(rows["claim"] == "wins_more_often") & (rows["model"] != "all")]
    assert len(cells) == len(REPLICATED.models) * len(REPLICATED.benchmarks)
    assert (cells["p_holm"] >= cells["p"]).all()
    rewards = rows[rows["of"] != "judgments"]
    assert len(rewards) and (rewards["difference"].abs() < 1e-12).all(), "only the judgments differ"


def test_equal_rates_are_the_same_within_a_margin_and_undecided_within_a_smaller_one(tmp_path):
    rows = differences(*grids(tmp_path, 0.6, 0.6))
    assert sentence(rows, CONFIDENCE, 0.05) == "The same: no figure differs, and win rates differ by less than 0.05."
    said = sentence(rows, CONFIDENCE, 0.001)
    assert said.startswith("Cannot tell: no figure differs, but win rates may differ by up to 0.0")
    backwards = differences(*reversed(grids(tmp_path, 0.6, 0.6)))
    assert list(backwards["difference"]) == pytest.approx(list(-rows["difference"]))
    assert list(backwards["p"]) == pytest.approx(list(rows["p"]), nan_ok=True)


def test_one_replicate_cannot_tell(tmp_path):
    assert sentence(differences(*grids(tmp_path, 0.7, 0.5, replicates=1)), CONFIDENCE, 0.05) == (
        "Cannot tell: a grid has one replicate, so nobody knows how much its runs vary."
    )


@pytest.fixture
def two_folders(tmp_path):
    """Two equal grids with the stored settings of their stages."""
    for name in ("a", "b"):
        folder = write_results(tmp_path / name, grid=REPLICATED)
        (folder / "settings").mkdir()
        (folder / "settings/tables.yaml").write_text(yaml.safe_dump(REPLICATED.model_dump(mode="json")))
        (folder / "settings/judge.yaml").write_text(yaml.safe_dump({"model": f"judge-{name}", "kind": "gold"}))
    return tmp_path / "a", tmp_path / "b"


def test_command_says_what_differs(two_folders, tmp_path, monkeypatch, capsys):
    a, b = two_folders
    monkeypatch.setattr(sys, "argv", ["salsa", "compare", str(a), str(b), "--out", str(tmp_path / "all.csv")])
    assert main("salsa", COMMANDS) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "  judge: model: judge-a | judge-b" in lines
    assert lines[-1].startswith("The same: all ")
    assert len(pd.read_csv(tmp_path / "all.csv")) == int(lines[-1].split()[3])


def test_command_refuses_what_is_no_finished_grid(two_folders, command):
    a, b = two_folders
    status, said = command("salsa", "compare", a, b / "tables")
    assert status == 1 and f"{b / 'tables'}: not the results of a grid" in said
    shutil.rmtree(b / "judgments")
    status, said = command("salsa", "compare", a, b)
    assert status == 1 and "more: missing; comparing needs all results, not the tables alone" in said


def test_claims_that_differ_are_not_compared(tmp_path):
    a, b = grids(tmp_path, 0.6, 0.6)
    changed = b.grid.claims["wins_more_often"].model_copy(update={"comparison": "ppo_vs_sft"})
    b.grid = b.grid.model_copy(update={"claims": {**b.grid.claims, "wins_more_often": changed}})
    assert "wins_more_often" not in set(differences(a, b)["claim"])
