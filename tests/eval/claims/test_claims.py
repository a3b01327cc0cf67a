"""The claims of a grid: from results to the table, its mirror image, the file of claims and its sources."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from eval.claims.observations import collapsed, soup_gains
from eval.grid.claims import Claim, load_claims
from eval.grid.results import GridResults
from eval.report.assumptions import load_assumptions
from eval.tables import claimed
from salsa.runtime.errors import UserError
from tests.eval.synthetic import GRID, REPLICATED, write_results

ROOT = Path(__file__).parents[3]
CLAIMS = load_claims([ROOT / "config/claims.yaml"])


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> GridResults:
    return GridResults(write_results(tmp_path_factory.mktemp("claims"), grid=REPLICATED), REPLICATED)


def whole(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[claimed.over_all(frame)].set_index(["claim", "condition"])


def test_win_rate_over_all_is_the_mean_of_the_benchmarks(results):
    rates = results.win_rates
    expected = rates[(rates["comparison"] == "salsa_vs_ppo") & (rates["model"] == "all")]["win_rate"].mean()
    row = whole(claimed.rows(results)).loc[("wins_more_often", 1)]
    assert row["estimate"] == pytest.approx(expected)
    assert row["over"] == "runs and questions"


def test_cells_are_those_of_the_table_of_win_rates(results):
    frame, rates = claimed.rows(results), results.win_rates
    cells = frame[(frame["claim"] == "wins_more_often") & ~claimed.over_all(frame) & (frame["benchmark"] != "all")]
    names = ["model", "benchmark", "estimate", "low", "high"]
    of_table = rates[rates["comparison"] == "salsa_vs_ppo"].rename(columns={"win_rate": "estimate"})[names]
    both = cells[names].merge(of_table, on=["model", "benchmark"])
    assert len(both) == len(cells) == len(of_table) == 9
    for name in ("estimate", "low", "high"):
        assert list(both[f"{name}_x"]) == pytest.approx(list(both[f"{name}_y"]))


def test_swapped_methods_give_the_mirror_image(results):
    """b against a of the same judgments: a supported claim is contradicted, with the mirrored interval."""
    claim = Claim.model_validate(CLAIMS["earns_more_reward"].model_dump() | {"comparison": "mirror"})
    swapped = {"a": "ppo", "b": "salsa"}
    grid = REPLICATED.model_copy(
        update={
            "claims": {"there": CLAIMS["earns_more_reward"], "back": claim},
            "comparisons": {
                **REPLICATED.comparisons,
                "mirror": type(REPLICATED.comparisons["salsa_vs_ppo"])(**swapped),
            },
        }
    )
    mirrored = GridResults(results.folder, grid)
    mirrored.judgments = results.judgments
    rows = whole(claimed.rows(mirrored))
    there, back = rows.loc[("there", 1)], rows.loc[("back", 1)]
    assert (back["estimate"], back["low"], back["high"]) == pytest.approx(
        (-there["estimate"], -there["high"], -there["low"])
    )
    assert back["p"] == pytest.approx(there["p"])
    assert back["on_claimed_side"] != there["on_claimed_side"]


def test_claim_of_what_a_grid_lacks_is_not_measured(results):
    grid = REPLICATED.model_copy(
        update={
            "claims": {
                "other": CLAIMS["wins_more_often"].model_copy(update={"comparison": "x_vs_y"}),
                "gold": CLAIMS["is_better_in_truth"],
            }
        }
    )
    without = GridResults(results.folder, grid)
    without.judgments, without.scores = results.judgments, results.scores.assign(gold=None)
    rows = claimed.rows(without)
    assert list(rows["verdict"]) == list(rows["verdict_holm"]) == ["not measured"] * 2
    assert rows["estimate"].isna().all()


def test_one_replicate_supports_nothing(tmp_path):
    rows = claimed.rows(GridResults(write_results(tmp_path), GRID))
    assert set(rows["verdict"]) == {"undecided", "not measured"}
    unmeasured = {"keeps_stability", "is_more_than_a_weaker_penalty"}  # one run does not spread; no frontier
    assert set(rows.loc[rows["verdict"] == "not measured", "claim"]) == unmeasured


def test_another_model_leaves_the_cells_of_others_as_they_are(results):
    grid = REPLICATED.model_copy(update={"models": REPLICATED.models[:1]})
    fewer, all_rows = claimed.rows(GridResults(results.folder, grid)), claimed.rows(results)
    names = ["claim", "condition", "model", "benchmark"]
    first = fewer[fewer["model"] == REPLICATED.models[0]].set_index(names)
    pd.testing.assert_frame_equal(
        first[["estimate", "low", "high", "verdict"]],
        all_rows.set_index(names).loc[first.index, ["estimate", "low", "high", "verdict"]],
    )


def test_order_of_rows_and_names_of_replicates_change_nothing(results):
    other = GridResults(results.folder, REPLICATED)
    names = {"r1": "x", "r2": "a", "r3": "m"}
    for name in ("judgments", "scores"):
        frame = getattr(results, name).sample(frac=1, random_state=1)
        setattr(other, name, frame.assign(replicate=frame["replicate"].map(names)))
    shown = ["estimate", "low", "high", "p", "p_claim", "p_holm", "verdict", "verdict_holm"]
    there, back = claimed.rows(results), claimed.rows(other)
    pd.testing.assert_frame_equal(there[shown], back[shown])


def test_collapsed_runs_are_those_that_end_worse_or_stuck():
    steps = pd.DataFrame({"reward": [0.0, 1, 2, 3], "entropy": [1.0, 1, 1, 1], "eos_share": 1.0})
    runs = {
        "well": steps,
        "fell": steps.assign(reward=[0.0, 1, 0, -1]),
        "stuck": steps.assign(entropy=[1.0, 0.5, 0.1, 0.05]),
        "endless": steps.assign(eos_share=[1.0, 1, 0.5, 0.4]),
    }
    key = {"model": "m", "method": "ppo", "replicate": "r1"}
    training = pd.concat([frame.assign(**key, policy=name) for name, frame in runs.items()])
    found = collapsed(training).set_index("policy")["collapsed"].to_dict()
    assert found == {"well": 0.0, "fell": 1.0, "stuck": 1.0, "endless": 1.0}


def test_gain_of_a_soup_is_above_the_mean_of_its_ingredients():
    line = pd.DataFrame(
        {"alpha": [0.0, 0.5, 1.0, None], "reward": [1.0, 2.5, 2.0, 9.0], "model": "m", "replicate": "r"}
    )
    assert list(soup_gains(line, "reward")["points"]) == [1.0]


def test_register_has_a_source_for_each_claim():
    """The abstract's family and nothing else has its sentence from the abstract."""
    sources = load_assumptions(ROOT / "config/assumptions.yaml").claims
    claims = load_claims(sorted((ROOT / "config").glob("claims*.yaml")))
    assert {name: claim.family == "abstract" for name, claim in claims.items()} == {
        name: source.standing == "abstract" for name, source in sources.items()
    }


def test_two_files_of_claims_cannot_share_a_name(tmp_path):
    shutil.copy(ROOT / "config/claims.yaml", tmp_path / "mine.yaml")
    with pytest.raises(UserError, match=r"mine.yaml: claims.deviates_further: another file .* rename one"):
        load_claims([ROOT / "config/claims.yaml", tmp_path / "mine.yaml"])
