"""The harness on trial, through the whole pipeline: `make trial`, under 30 minutes on two cores.

The grid trains PPO twice in each replicate, from two SFT models (`ppo` and `again`): one recipe, so no claim about the
difference is true. Its results are relabelled, which is honest where labels are exchangeable: a draw takes three of the
replicates, and in each model and replicate the two policies may swap their names. Verdicts are those of the tables. A
planted effect replaces one method's answers by SFT 1's on a share of the questions.
"""

import gc
import itertools
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats

from eval.grid.layout import Grid, grid_of
from eval.grid.results import GridResults
from eval.statistics.crossed import Components
from eval.statistics.intervals import rate_estimate
from eval.tables import claimed
from salsa.config.claims import Claim
from salsa.config.config import load_config

ROOT = Path(__file__).parents[2]
WORK = Path(os.environ.get("TRIAL", ROOT / "data/trial"))
REPLICATES, TAKEN, DRAWS = 6, 3, 300
CONFIDENCE = 0.95
PLANTED = (0.2, 0.4, 0.8)  # shares of the questions
PAIR = {"a": "again", "b": "ppo"}
CLAIMS = {
    name: Claim.model_validate(
        {
            **{"says": name, "family": "trial", "comparison": "again_vs_ppo"},
            "conditions": [{"figure": name, "of": source, "measure": measure, "above": threshold}],
        }
    )
    for name, source, measure, threshold in (
        ("wins", "judgments", "win_rate", 0.5),
        ("reward", "scores", "reward", 0.0),
        ("gold", "scores", "gold", 0.0),
    )
}


def config() -> dict:
    """The mini grid with PPO from two SFT models, and more replicates."""
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
        "again_vs_ppo": PAIR,
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
    command = [
        "snakemake",
        "--snakefile",
        ROOT / "Snakefile",
        "--directory",
        WORK,
        "--cores",
        "2",
        "--configfile",
        path,
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    with (WORK / "snakemake.log").open("w") as log:
        made = subprocess.run(
            list(map(str, command)), stdout=log, stderr=subprocess.STDOUT, env=environment, check=False
        )
    assert made.returncode == 0, (WORK / "snakemake.log").read_text()[-3000:]
    grid = grid_of(load_config(path)).model_copy(update={"claims": CLAIMS})
    gc.freeze()  # statsmodels collects garbage with each correction: half of a draw's time
    return GridResults(WORK / "results/trial", grid)


def mirrored(judgments: pd.DataFrame) -> pd.DataFrame:
    """The same matches with both sides exchanged."""
    return judgments.assign(a=judgments["b"], b=judgments["a"], points=judgments["weight"] - judgments["points"])


def relabelled(base: GridResults, rng: np.random.Generator, planted: float = 0.0) -> GridResults:
    """One draw: three replicates, names swapped at random; on a share of the questions SFT 1 answers for `again`."""
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
        # The policy that plays `ppo` against SFT 1, from SFT 1's side.
        other = mirrored(mine[mine["comparison"] == ("again_vs_sft" if swap else "ppo_vs_sft")])
        pair = mirrored(pair) if swap else pair
        is_replaced = [key in replaced for key in zip(pair["benchmark"], pair["question_id"], strict=True)]
        instead = [key in replaced for key in zip(other["benchmark"], other["question_id"], strict=True)]
        judgments.append(pd.concat([pair[~np.array(is_replaced)], other[instead]]).assign(comparison="again_vs_ppo"))
        rows = base.scores[(base.scores["model"] == model) & (base.scores["replicate"] == replicate)]
        names = {"ppo": "again", "again": "ppo"} if swap else {}
        scores.append(rows.assign(method=rows["method"].replace(names)))
    results = GridResults(base.folder, grid.model_copy(update={"replicates": {n: grid.replicates[n] for n in taken}}))
    results.judgments, results.scores = pd.concat(judgments, ignore_index=True), pd.concat(scores, ignore_index=True)
    return results


def power(effect: float, components: Components) -> float:
    """Probability that an interval excludes 0 on the side of the effect: noncentral t, with the plan's variance."""
    variance, df = components.at(TAKEN, components.asked)
    return float(stats.nct.sf(stats.t.ppf((1 + CONFIDENCE) / 2, df), df, effect / np.sqrt(variance)))


def test_false_verdicts_are_at_most_five_of_a_hundred(base):
    """A/A. Each claim over all, and the cells; the standard error of a share of 300 draws is 1.3 points."""
    rng = np.random.default_rng(1)
    decided, cells, draws = Counter(), Counter(), Counter()
    for _ in range(DRAWS):
        rows = claimed.rows(relabelled(base, rng))
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
        assert decided[claim] <= stats.binom.ppf(0.99, DRAWS, 1 - CONFIDENCE), claim
        assert cells[claim] / draws[claim] <= 0.08, claim


def test_planted_effect_is_found_with_the_predicted_power(base):
    """The prediction takes its variance from all replicates."""
    pair = base.judgments[(base.judgments["comparison"] == "again_vs_ppo") & (base.judgments["weight"] > 0)]
    components = rate_estimate(pair).variance.components
    against = [
        rate_estimate(mirrored(part)).value
        for name in ("ppo_vs_sft", "again_vs_sft")
        for part in [base.judgments[(base.judgments["comparison"] == name) & (base.judgments["weight"] > 0)]]
    ]
    rng = np.random.default_rng(2)
    for share in PLANTED:
        effect = share * (float(np.mean(against)) - 0.5)
        verdicts = Counter()
        for _ in range(DRAWS // 3):
            results = relabelled(base, rng, share)
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
