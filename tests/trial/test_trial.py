"""Put the harness on trial, through the whole pipeline: `make trial`, 25 minutes on two cores.

The grid trains PPO twice in each replicate, from two SFT models: `ppo` and `again`. Both follow one recipe, so no claim
about their difference is true. Many draws come from the one grid: a draw takes three of its six replicates, and in each
model and replicate the two policies may swap their names, which they could have had the other way round. Verdicts are
those of the tables. For a planted effect, SFT 1's answers replace those of `again` on a share of the questions.
"""

import gc
import itertools
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats

from eval.claims.settle import POWER, detectable
from eval.grid.claims import Claim
from eval.grid.layout import Grid, grid_of
from eval.grid.results import GridResults
from eval.statistics.crossed import Components
from eval.statistics.intervals import rate_estimate
from eval.tables import claimed
from salsa.config.config import load_config
from tests.workflow.running import ROOT, start

WORK = Path(os.environ.get("TRIAL", ROOT / "data/trial"))
REPLICATES, TAKEN, DRAWS = 6, 3, 300
CONFIDENCE = 0.95
PLANTED = (0.2, 0.4, 0.8)  # shares of the questions
CONDITIONS = {
    "wins": {"of": "judgments", "measure": "win_rate", "above": 0.5},
    "reward": {"of": "scores", "measure": "reward", "above": 0.0},
    "gold": {"of": "scores", "measure": "gold", "above": 0.0},
}
CLAIMS = {
    name: Claim.model_validate(
        {"says": name, "family": "trial", "comparison": "again_vs_ppo", "conditions": [{"figure": name, **condition}]}
    )
    for name, condition in CONDITIONS.items()
}


def config() -> dict:
    """The mini grid with PPO from two SFT models and six replicates, without what the trial does not need."""
    grid = yaml.safe_load((ROOT / "config/mini.yaml").read_text())
    for key in ("claims", "calibration"):
        grid.pop(key)
    grid["grid"] = "trial"
    grid["world"].pop("published_judge")
    grid = yaml.safe_load(yaml.safe_dump(grid).replace("data/mini/", "data/trial/"))
    grid["reward"].pop("held_out")
    grid["replicates"] = {f"r{n}": {"sft": {"sft-1": 2 * n - 1, "sft-2": 2 * n}} for n in range(1, REPLICATES + 1)}
    grid["methods"] = {
        "sft": {"algorithm": "none", "init": "sft-1"},
        "ppo": {"algorithm": "ppo", "init": "sft-1", "reference": "sft-1"},
        "again": {"algorithm": "ppo", "init": "sft-2", "reference": "sft-2"},
    }
    grid["comparisons"] = {
        "again_vs_ppo": {"a": "again", "b": "ppo"},
        "ppo_vs_sft": {"a": "ppo", "b": "sft"},
        "again_vs_sft": {"a": "again", "b": "sft"},
    }
    grid["alpha"] = {**grid["alpha"], "points": [0], "samples": 2, "also": []}
    for benchmark in grid["benchmarks"].values():
        benchmark.pop("grade", None)
    grid["tables"] = {"headline": "again_vs_ppo"}
    grid["policies_together"] = True
    return grid


@pytest.fixture(scope="session")
def base() -> GridResults:
    """The grid's results; an interrupted run resumes."""
    WORK.mkdir(parents=True, exist_ok=True)
    path = WORK / "trial.yaml"
    path.write_text(yaml.safe_dump(config()))
    process = start(WORK, "--configfile", str(path))
    said, _ = process.communicate()
    assert process.returncode == 0, said[-3000:]
    grid = grid_of(load_config(path)).model_copy(update={"claims": CLAIMS})
    gc.freeze()  # statsmodels collects garbage with each correction: half of a draw's time
    return GridResults(WORK / "results/trial", grid)


def mirrored(judgments: pd.DataFrame) -> pd.DataFrame:
    """The same matches with both sides exchanged."""
    return judgments.assign(a=judgments["b"], b=judgments["a"], points=judgments["weight"] - judgments["points"])


def draw(base: GridResults, rng: np.random.Generator, planted: float = 0.0) -> GridResults:
    """Three replicates with names swapped at random. SFT 1 answers for `again` on the share `planted` of questions."""
    grid = base.grid
    taken = sorted(rng.choice(list(grid.replicates), TAKEN, replace=False))
    judgments, scores = [], []
    replaced = {
        (benchmark, question)
        for benchmark, part in base.judgments.groupby("benchmark")
        for question in part["question_id"].unique()
        if rng.random() < planted
    }
    for model, replicate in itertools.product(grid.models, taken):
        swap = rng.random() < 0.5
        mine = base.judgments[(base.judgments["model"] == model) & (base.judgments["replicate"] == replicate)]
        pair = mine[mine["comparison"] == "again_vs_ppo"]
        # SFT 1 against the policy that is called ppo in this draw.
        sft = mirrored(mine[mine["comparison"] == ("again_vs_sft" if swap else "ppo_vs_sft")])
        pair = mirrored(pair) if swap else pair
        is_replaced = [key in replaced for key in zip(pair["benchmark"], pair["question_id"], strict=True)]
        instead = [key in replaced for key in zip(sft["benchmark"], sft["question_id"], strict=True)]
        judgments.append(pd.concat([pair[~np.array(is_replaced)], sft[instead]]).assign(comparison="again_vs_ppo"))
        rows = base.scores[(base.scores["model"] == model) & (base.scores["replicate"] == replicate)]
        names = {"ppo": "again", "again": "ppo"} if swap else {}
        scores.append(rows.assign(method=rows["method"].replace(names)))
    results = GridResults(base.folder, grid.model_copy(update={"replicates": {n: grid.replicates[n] for n in taken}}))
    results.judgments, results.scores = pd.concat(judgments, ignore_index=True), pd.concat(scores, ignore_index=True)
    return results


def power(effect: float, components: Components) -> float:
    """Probability that the interval of a draw excludes 0 on the side of the effect, by noncentral t."""
    variance, df = components.at(TAKEN, components.asked)
    return float(stats.nct.sf(stats.t.ppf((1 + CONFIDENCE) / 2, df), df, effect / np.sqrt(variance)))


def test_false_verdicts_are_at_most_five_of_a_hundred(base):
    """A/A. Each claim over all, and the cells; the standard error of a share of 300 draws is 1.3 points."""
    rng = np.random.default_rng(1)
    decided, cells, draws = Counter(), Counter(), Counter()
    for _ in range(DRAWS):
        rows = claimed.rows(draw(base, rng))
        whole = rows[claimed.over_all(rows)]
        for row in whole.to_dict("records"):
            decided[row["claim"]] += row["verdict"] != "undecided"
            decided[f"{row['claim']} (Holm)"] += row["verdict_holm"] != "undecided"
        single = rows[(rows["model"] != "all") & (rows["benchmark"] != "all")]
        cells.update(single.loc[single["verdict"] != "undecided", "claim"])
        draws.update(single["claim"])
    for claim in CLAIMS:
        shares = (decided[claim] / DRAWS, decided[f"{claim} (Holm)"] / DRAWS, cells[claim] / draws[claim])
        print(f"A/A {claim}: false {shares[0]:.3f}, with Holm {shares[1]:.3f}; cells {shares[2]:.3f}")
    for claim in CLAIMS:
        assert decided[claim] / DRAWS <= 1 - CONFIDENCE, claim
        # Intervals of single models with three replicates cover 93 % (docs/statistics.md).
        assert cells[claim] / draws[claim] <= 0.07, claim


def test_planted_effect_is_found_with_the_predicted_power(base):
    """The prediction takes its variance from all six replicates."""
    pair = base.judgments[(base.judgments["comparison"] == "again_vs_ppo") & (base.judgments["weight"] > 0)]
    components = rate_estimate(pair).variance.components
    against = [
        rate_estimate(mirrored(part)).value
        for name in ("ppo_vs_sft", "again_vs_sft")
        for part in [base.judgments[(base.judgments["comparison"] == name) & (base.judgments["weight"] > 0)]]
    ]
    smallest = detectable(components, TAKEN, components.asked, CONFIDENCE)
    exact = power(smallest, components)
    print(f"smallest effect by the plan {smallest:.3f}: planned power {POWER}, by noncentral t {exact:.2f}")
    assert abs(exact - POWER) < 0.03
    rng = np.random.default_rng(2)
    for share in PLANTED:
        effect = share * (float(np.mean(against)) - 0.5)
        verdicts = Counter()
        for _ in range(DRAWS // 3):
            results = draw(base, rng, share)
            results.grid = results.grid.model_copy(update={"claims": {"wins": CLAIMS["wins"]}})
            rows = claimed.rows(results)
            verdicts[rows.loc[claimed.over_all(rows), "verdict"].item()] += 1
        predicted = power(abs(effect), components)
        found = verdicts["contradicted"] / (DRAWS // 3)
        print(f"planted {effect:+.3f}: found {found:.2f}, predicted {predicted:.2f}")
        assert verdicts["supported"] <= 2
        assert abs(found - predicted) < 0.25


def test_grid_is_what_the_trial_says(base):
    """One recipe twice: the methods differ in the role of their SFT model alone."""
    grid: Grid = base.grid
    ppo, again = grid.methods["ppo"], grid.methods["again"]
    assert again.model_copy(update={"init": ppo.init, "reference": ppo.reference}) == ppo
    assert len(grid.replicates) == REPLICATES
