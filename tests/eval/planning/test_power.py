"""Power of a planned grid, by the variances of a finished one."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from eval.claims.settle import VARIANCE
from eval.costs.assumed import assumed
from eval.costs.sizes import Sizes
from eval.planning.grid_plan import Plan
from eval.planning.plan import power_lines
from eval.planning.power import finished_claims, powers, with_another_replicate
from eval.statistics.crossed import Cells, Components, crossed_variance
from salsa.config.config import load_config
from salsa.runtime.errors import UserError

ROOT = Path(__file__).parents[3]
FINISHED = Components(runs=3e-4, questions=2e-4, noise=1e-4, models=3, replicates=3, asked=260)


@pytest.fixture
def finished(tmp_path) -> Path:
    """A results folder in which one figure was measured: a win rate of .53."""
    (tmp_path / "tables").mkdir()
    place = {"claim": "wins_more_often", "figure": "adjusted win rate", "model": "all", "benchmark": "all"}
    row = {**place, "estimate": 0.53, "threshold": 0.5}
    row |= {VARIANCE[name]: value for name, value in vars(FINISHED).items()}
    pd.DataFrame([row, {**row, "model": "one"}]).to_csv(tmp_path / "tables/claims.csv", index=False)
    return tmp_path


def test_smallest_difference_is_that_of_the_variance(finished, monkeypatch):
    """The paper's grid: as many models and replicates, 1,080 questions for 260."""
    monkeypatch.chdir(ROOT)
    sizes = Sizes(load_config(ROOT / "config/paper.yaml"))
    by_claim = {(one.claim, one.figure): one for one in powers(sizes, finished_claims(finished), 0.02)}
    one = by_claim["wins_more_often", "adjusted win rate"]
    share = 260 / 1080
    runs, questions, noise = 3e-4 + 1e-4 * share, (2e-4 + 1e-4) * share, 1e-4 * share
    variance = runs + questions - noise
    df = variance**2 / (runs**2 / 6 + questions**2 / 1079 + noise**2 / (6 * 1079))
    expected = (stats.t.ppf(0.975, df) + stats.t.ppf(0.8, df)) * np.sqrt(variance)
    assert one.smallest == pytest.approx(expected)
    assert (one.target, one.replicates) == (0.02, None), "the questions alone leave more open"
    [larger] = [p for p in powers(sizes, finished_claims(finished), 1.01 * one.smallest) if p.claim == one.claim]
    assert larger.replicates == 3
    assert np.isnan(by_claim["deviates_further", "difference in KL(policy, SFT 1)"].smallest), (
        "not in the finished grid"
    )
    assert not {"is_better_in_truth", "is_more_than_a_weaker_penalty"} & {claim for claim, _ in by_claim}


def test_more_models_are_more_runs():
    """The components of three models predict what twice the models give."""
    rng = np.random.default_rng(1)
    predicted, measured = [], []
    for _ in range(200):
        shape = (6, 3, 20)
        values = rng.normal(size=(6, 3, 1)) + rng.normal(size=20) + rng.normal(size=shape)
        for models, found in ((3, predicted), (6, measured)):
            part = values[:models] - values[:models].mean()
            model, replicate, question = np.indices(part.shape).reshape(3, -1)
            cells = Cells(model, np.zeros_like(model), replicate, question)
            variance = crossed_variance(part.ravel() / part.size, cells)
            found.append(variance.components.at(3, 20, 6)[0])
            if models == 6:
                assert found[-1] == pytest.approx(variance.value)
    assert np.mean(predicted) == pytest.approx(np.mean(measured), rel=0.05)


@pytest.mark.parametrize("name", ["smoke", "mini"])
def test_each_further_replicate_costs_the_same(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    plans = []
    config = load_config(ROOT / f"config/{name}.yaml")
    for _ in range(3):
        config = with_another_replicate(config)
        plans.append(Plan.of(config, assumed().devices["h100"], 8))
    steps = np.diff([[plan.device_hours(), plan.calls().number, len(plan.runs)] for plan in plans], axis=0)
    assert steps[0] == pytest.approx(steps[1]) and (steps > 0).all()


def test_one_replicate_finds_nothing_and_the_finished_grids_difference_is_the_default(finished, monkeypatch):
    monkeypatch.chdir(ROOT)
    plan = Plan.of(load_config(ROOT / "config/smoke.yaml"), assumed().devices["h100"], 8)
    [line] = [line for line in power_lines(plan, finished, None) if line.startswith("wins_more_often")]
    assert line.split()[4:6] == ["-", "0.03"]


def test_mini_grid_without_tables_leaves_the_power_unknown(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("eval.planning.plan.FINISHED", tmp_path)
    plan = Plan.of(load_config(ROOT / "config/smoke.yaml"), assumed().devices["h100"], 8)
    [line] = power_lines(plan, None, None)
    assert line.endswith("unknown: the mini grid has no tables here; name a finished grid by --like")


def test_results_without_variances_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"claims\.csv: cannot read it: No such file or directory; name the results"):
        finished_claims(tmp_path)
    (tmp_path / "tables").mkdir()
    pd.DataFrame([{"claim": "x"}]).to_csv(tmp_path / "tables/claims.csv")
    with pytest.raises(UserError, match=r"claims\.csv: no column variance_of_runs: make its tables again by salsa rep"):
        finished_claims(tmp_path)
