"""The frontier's tables, figure and claim from an invented grid in which SALSA is better by 0.1 at each KL."""

import pandas as pd
import pytest

from eval.claims.frontier import differences_at_equal_kl
from eval.figures.differences import equal_kl_figure
from eval.figures.frontier import frontier_figure
from eval.grid.aggregate import with_win_rates
from eval.grid.results import GridResults
from eval.tables import at_equal_kl, claimed
from eval.tables.measured import REWARD_MODEL
from salsa.config.sections import Comparison
from tests.eval.synthetic import GAIN, REPLICATED, SPREAD, with_frontier, write_results

GRID = with_frontier(REPLICATED)


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> GridResults:
    return GridResults(write_results(tmp_path_factory.mktemp("frontier"), grid=GRID), GRID)


def test_difference_at_equal_kl_is_the_planted_one(results):
    """SALSA's curve does not start at SFT 1's reward here, so it is fitted without it."""
    without_start = GRID.model_copy(
        update={"methods": {name: m.model_copy(update={"init": "sft-2"}) for name, m in GRID.methods.items()}}
    )
    sides = GRID.comparisons["salsa_vs_ppo"]
    found = differences_at_equal_kl(results.frontier, without_start, sides, "reward")
    assert list(found["mean"]) == pytest.approx([GAIN - SPREAD, GAIN, GAIN + SPREAD] * 2)
    # Both reach from half the KL of the largest beta to the KL of the smallest.
    assert (found["low"].iloc[0], found["high"].iloc[0]) == pytest.approx((0.5 * 0.4 / 0.4, 0.3 / 0.05))


def test_interval_is_over_replicates_nested_in_models(results):
    rows = at_equal_kl.equal_kl_rows(results).set_index(["comparison", "model", "measure"])
    row = rows.loc[("salsa_vs_ppo", "all", "reward")]
    assert row["over"] == "runs"
    assert 0 < row["low"] < row["difference"] < row["high"]
    narrow = (row["high"] - row["low"]) / 2
    single = rows.loc[("salsa_vs_ppo", "one-mini", "reward")]
    assert narrow < (single["high"] - single["low"]) / 2, "two models have twice the replicates"
    assert ("ppo_vs_sft", "all", "reward") not in rows.index, "SFT is not on the frontier"


def test_claim_at_equal_kl_is_supported(results):
    rows = claimed.rows(results)
    mine = rows[rows["claim"] == "is_more_than_a_weaker_penalty"]
    assert list(mine["verdict"]) == ["supported", "supported"]


def test_table_of_runs_has_each_method_at_each_beta(results):
    rows = at_equal_kl.run_rows(results)
    assert len(rows) == 2 * 2 * 4
    assert (rows["replicates"] == 3).all()
    notes = list(at_equal_kl.turn_note(results, rows))
    assert notes[0] == "one-mini, ppo: the mean gold reward is highest at a beta of 0.05, the smallest."


def test_policies_that_answer_nothing_are_in_no_table_of_answers(results):
    assert set(results.scores["method"]) == {"sft", "ppo", "salsa"}
    assert "ppo-b0.05" in set(results.training["method"])


def test_win_rate_of_a_run_is_over_its_matches_with_the_opponent():
    """PPO's end: 3 of 4 points in one benchmark, 0 of 2 in another, so 3/8 on average; none for its checkpoint on the
    way, nor for SALSA, which did not play against SFT; SFT 1 plays against itself.
    """
    grid = GRID.model_copy(update={"comparisons": {**GRID.comparisons, "salsa_vs_sft": Comparison(a="salsa", b="sft")}})
    points = pd.DataFrame(
        {"model": "one-mini", "replicate": "r1", "policy": [None, "ppo-r1-s1", "ppo-r1-s1", "salsa-r1-s1"]}
    ).assign(steps=[None, 4, None, None])
    matches = [
        ("salsa_vs_ppo", "salsa-r1-s1", "first", 0, 2),
        ("ppo_vs_sft", "ppo-r1-s1", "first", 2, 2),
        ("ppo_vs_sft", "ppo-r1-s1", "first", 1, 2),
        ("ppo_vs_sft", "ppo-r1-s1", "second", 0, 2),
    ]
    names = ["comparison", "a", "benchmark", "points", "weight"]
    judgments = pd.DataFrame(matches, columns=names).assign(model="one-mini")
    rates = with_win_rates(points, judgments, grid, "sft")["win_rate"]
    assert rates.fillna(-1).tolist() == [0.5, -1, 0.375, -1]


def test_figure_and_page_are_made(results, command):
    settings = GRID.model_dump_json(exclude_none=True)
    for stage, out in (("tables", "tables"), ("figures", "figures"), ("report", "report.html")):
        status, said = command(
            "eval", stage, "--results", results.folder, "--settings", settings, "--out", results.folder / out
        )
        assert status == 0, said
    assert (results.folder / "figures/frontier.svg").exists()
    assert "Methods at equal KL" in (results.folder / "report.html").read_text()
    assert list(pd.read_csv(results.folder / "tables/equal_kl.csv")["model"].unique()) == [
        "one-mini",
        "two_mini",
        "all",
    ]


def test_own_rewards_of_methods_are_shown_and_not_compared(results):
    """They are different measures, so a difference of them would mean nothing."""
    results = GridResults(results.folder, GRID)
    results.frontier["reward_trained_on"] = results.frontier["reward"] + 1.0
    rows = at_equal_kl.run_rows(results)
    assert list(rows["reward_trained_on"]) == pytest.approx(list(rows["reward"] + 1.0))
    assert "reward_trained_on" not in set(at_equal_kl.equal_kl_rows(results)["measure"])
    assert [panel.get_visible() for panel in frontier_figure(results).axes[2::3]] == [True, False, True, True]


def test_methods_with_one_policy_are_compared_at_its_kl(results):
    """`alone` has PPO's policy at a beta of 0.2 with a reward 0.3 higher. SALSA's curve misses the planted one a
    little, because it starts at SFT 1's reward.
    """
    ended = results.frontier[
        results.frontier["policy"].fillna("").str.match(r"ppo-r\d") & results.frontier["steps"].isna()
    ]
    points = pd.concat([results.frontier, ended.assign(method="alone", reward=ended["reward"] + 0.3)])
    runs = [*GRID.frontier, GRID.frontier[0].model_copy(update={"method": "alone", "name": "alone"})]
    grid = GRID.model_copy(
        update={
            "frontier": runs,
            "methods": {**GRID.methods, "alone": GRID.methods["ppo"]},
            "comparisons": {
                "alone_vs_ppo": Comparison(a="alone", b="ppo"),
                "salsa_vs_alone": Comparison(a="salsa", b="alone"),
                "ppo_vs_sft": Comparison(a="ppo", b="sft"),
            },
        }
    )
    results = GridResults(results.folder, grid)
    results.frontier = points
    rows = at_equal_kl.equal_kl_rows(results)
    found = rows[(rows["measure"] == "reward") & (rows["model"] == "all")].set_index("comparison")
    assert found["difference"].to_dict() == pytest.approx(
        {"alone_vs_ppo": 0.3, "salsa_vs_alone": GAIN - 0.3}, abs=0.002
    )
    assert (found["kl_low"] == found["kl_high"]).all() and found["kl_low"].iloc[0] == pytest.approx(0.3 / 0.2)
    [note] = at_equal_kl.single_note(results, rows)
    assert note.startswith("alone: one policy, which is compared with a curve at the policy's KL. Only in")
    assert len(frontier_figure(results).axes) == 2 * 3, "several comparisons have a figure of their own"
    labels = [label.get_text() for label in equal_kl_figure(results).axes[0].get_yticklabels()]
    assert labels == ["alone − ppo", "salsa − alone"]


def test_two_policies_are_compared_by_their_distance_from_a_curve(results):
    """Both lie above PPO's curve, by 0.3 and 0.1 on average over two RL seeds, at other KLs."""
    points = results.frontier
    ended = points[points["steps"].isna()]
    one = ended[ended["method"].eq("ppo") & ended["beta"].eq(0.2)]
    other = ended[ended["method"].eq("ppo") & ended["beta"].eq(0.1)]
    others = [other.assign(method="other", beta=0.2, reward=other["reward"] + lift) for lift in (0.0, 0.2)]
    runs = [
        GRID.frontier[0].model_copy(update={"method": name, "name": name, "beta": 0.2}) for name in ("one", "other")
    ]
    grid = GRID.model_copy(
        update={
            "frontier": [*GRID.frontier, *runs],
            "frontier_curve": "ppo",
            "methods": {**GRID.methods, "one": GRID.methods["ppo"], "other": GRID.methods["ppo"]},
        }
    )
    points = pd.concat([points, one.assign(method="one", reward=one["reward"] + 0.3), *others])
    sides = Comparison(a="one", b="other")
    found = differences_at_equal_kl(points, grid, sides, "reward")
    assert list(found["mean"]) == pytest.approx([0.2] * 6)
    assert (found["low"].iloc[0], found["high"].iloc[0]) == pytest.approx((0.3 / 0.2, 0.3 / 0.1))
    assert differences_at_equal_kl(points, grid.model_copy(update={"frontier_curve": None}), sides, "reward").empty
    far = points.assign(kl_sft=points["kl_sft"].where(points["method"] != "other", 100.0))
    assert differences_at_equal_kl(far, grid, sides, "reward").empty, "PPO's curve does not reach it"


def test_combined_reward_models_are_named(results, tmp_path):
    results = GridResults(results.folder, GRID)
    results.reward_cards["version"] = ["", "weights-3", *["2"] * (len(results.reward_cards) - 2)]
    REWARD_MODEL.write(tmp_path, results)
    shown = (tmp_path / "reward_model.md").read_text()
    assert "| shared | 1 | 80 |" in shown and "| weights of 3 | 80 |" in shown and "(WARM)" in shown
