"""Claims as the report shows them."""

import csv

import pytest

from eval.report.assumptions import load_assumptions
from eval.report.claim_cards import cards
from tests.eval.synthetic import GRID, REPLICATED, ROOT, with_frontier

COLUMNS = [
    "claim",
    "says",
    "verdict",
    "verdict_holm",
    "figure",
    "model",
    "benchmark",
    "estimate",
    "low",
    "high",
    "side",
]
COLUMNS += ["threshold", "n", "p", "confidence", "on_claimed_side", "replicates_to_settle", "with_more_questions"]
WINS = {"claim": "wins_more_often", "says": "SALSA wins more often than PPO", "verdict": "undecided"}
WINS |= {"verdict_holm": "undecided", "figure": "adjusted win rate", "estimate": "0.52", "low": "0.48", "high": "0.56"}
WINS |= {"side": "above", "threshold": "0.5", "n": "80", "p": "0.2", "confidence": "0.95", "on_claimed_side": "True"}


@pytest.fixture
def results(tmp_path):
    (tmp_path / "tables").mkdir()
    rows = [
        {**WINS, "model": "all", "benchmark": "all", "replicates_to_settle": "9", "with_more_questions": "5"},
        {**WINS, "model": "one-mini", "benchmark": "mt_bench", "replicates_to_settle": "", "with_more_questions": ""},
        {**WINS, "claim": "is_more_than_a_weaker_penalty", "model": "all", "benchmark": "all", "estimate": ""},
    ]
    with (tmp_path / "tables/claims.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return tmp_path


def test_card_has_figures_numbers_and_what_would_settle_it(results):
    first, other = cards(results, GRID, load_assumptions(ROOT / "config/assumptions.yaml"))
    assert first["conditions"] == ["adjusted win rate 0.520 [0.480, 0.560], claimed above 0.5"]
    assert first["cells"] == [["one-mini", "mt_bench", *first["conditions"], "undecided", "80"]]
    assert first["to_settle"].startswith("9 replicates in all (5 with ")
    assert (first["figures"], first["comparison"]) == (["win_rates"], "salsa_vs_ppo")
    assert first["source"]["standing"] == "abstract"
    assert other["conditions"] == ["adjusted win rate: not measured"] and other["to_settle"] == ""
    assert other["figures"] == [], "a grid without a frontier has no figure of it"


def test_figures_and_comparisons_are_those_of_the_grid(results):
    grid = with_frontier(REPLICATED)
    assumptions = load_assumptions(ROOT / "config/assumptions.yaml")
    assert cards(results, grid, assumptions)[1]["figures"] == ["frontier"]
    without = grid.model_copy(update={"comparisons": {"ppo_vs_sft": grid.comparisons["ppo_vs_sft"]}})
    assert cards(results, without, assumptions)[0]["comparison"] is None
