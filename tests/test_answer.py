"""docs/answer.md quotes the committed tables of three grids; its tables and figures are computed from them here."""

import pytest

from eval.report.claims import shown
from eval.tables.formats import number
from tests.page_tables import ROOT, assert_page_has, assert_page_says, by_beta, limits, over_all, read, verdicts

REPLICATED = "replicated"
GRIDS = {  # results folder, and what the page calls it
    REPLICATED: "one reward model, SFT at a constant rate (above)",
    "reward-models": "a reward model for each replicate",
    "decayed-sft": "SFT that ends at a learning rate of zero",
}
PAGE = ROOT / "docs/answer.md"
BETAS = {"ppo": (0.1, 0.2, 0.4), "salsa": (0.1, 0.2, 0.4)}
MEASURES = {"reward": "learned reward", "reward_held_out": "held-out reward", "gold": "gold reward"}


def by_model() -> list[str]:
    """SALSA against PPO in each model and over all, over the questions of all benchmarks."""
    wins = {
        row["model"]: row
        for row in read(REPLICATED, "claims")
        if row["claim"] == "wins_more_often" and row["benchmark"] == "all"
    }
    rows = [
        row
        for row in read(REPLICATED, "improvements")
        if row["comparison"] == "salsa_vs_ppo" and row["benchmark"] == "all"
    ]
    differences = {(row["model"], row["measure"]): row for row in rows}
    return [
        f"| {model} | {limits(wins[model], 'estimate')} | "
        + " | ".join(limits(differences[model, name], "difference") for name in (*MEASURES, "kl_sft"))
        + " |"
        for model in wins
    ]


def ablations() -> list[str]:
    """SALSA against each other method, over all models and benchmarks."""
    claims = {row["claim"]: row for row in over_all(read(REPLICATED, "claims"))}
    claimed = {
        "salsa_vs_soup_start": "reference_beats_start",
        "salsa_vs_ref_sft2": "average_beats_other_sft",
        "salsa_vs_ref_perturbed": "average_beats_perturbation",
        "salsa_vs_mean_kl": "weights_beat_penalties",
        "salsa_vs_ema": "soup_beats_moving_average",
    }
    found = {(row["comparison"], row["measure"]): row for row in over_all(read(REPLICATED, "improvements"))}
    return [
        f"| `{comparison.removeprefix('salsa_vs_').replace('_', '-')}` | {limits(claims[claim], 'estimate')} | "
        + " | ".join(limits(found[comparison, name], "difference") for name in (*MEASURES, "kl_sft"))
        + " |"
        for comparison, claim in claimed.items()
    ]


def equal_kl() -> list[str]:
    """SALSA minus PPO at the same KL, by model."""
    rows = {
        (row["model"], row["measure"]): row
        for row in read(REPLICATED, "equal_kl")
        if row["comparison"] == "salsa_vs_ppo"
    }
    models = dict.fromkeys(model for model, _ in rows)
    return [
        f"| {model} | " + " | ".join(limits(rows[model, name], "difference") for name in MEASURES) + " |"
        for model in models
    ]


def over_all_by_grid() -> list[str]:
    """SALSA against PPO over all models and benchmarks, in each grid."""
    lines = []
    for grid, called in GRIDS.items():
        wins = next(row for row in over_all(read(grid, "claims")) if row["claim"] == "wins_more_often")
        found = {
            row["measure"]: row for row in over_all(read(grid, "improvements")) if row["comparison"] == "salsa_vs_ppo"
        }
        differences = (limits(found[name], "difference") for name in (*MEASURES, "kl_sft"))
        lines.append(f"| {called} | {limits(wins, 'estimate')} | " + " | ".join(differences) + " |")
    return lines


def equal_kl_by_grid() -> list[str]:
    """SALSA minus PPO at the same KL over all models, in each grid; and the soup minus its ingredients."""
    lines = []
    for grid, called in GRIDS.items():
        found = {
            row["measure"]: row
            for row in read(grid, "equal_kl")
            if row["comparison"] == "salsa_vs_ppo" and row["model"] == "all"
        }
        soup = next(row for row in over_all(read(grid, "claims")) if row["claim"] == "soup_is_better_located")
        differences = (limits(found[name], "difference") for name in MEASURES)
        lines.append(f"| {called} | " + " | ".join(differences) + f" | {limits(soup, 'estimate')} |")
    return lines


def sentences() -> list[str]:
    """What the text says of the ten replicates beside the tables."""
    found = {
        (row["comparison"], row["measure"]): float(row["difference"])
        for row in over_all(read(REPLICATED, "improvements"))
    }
    claims = {row["claim"]: row for row in over_all(read(REPLICATED, "claims"))}
    headline = read(REPLICATED, "headline")
    everywhere = {row["benchmark"]: row for row in headline if row["model"] == "all"}
    cells = [row for row in headline if row["model"] != "all"]
    single = next(row for row in cells if (row["model"], row["benchmark"]) == ("llama-mini", "arena_hard"))
    names = {"mt_bench": "MT-Bench", "arena_hard": "Arena-Hard", "ultrafeedback": "UltraFeedback"}
    wins = [f"{shown(everywhere[name]['win_rate'])} on {text}" for name, text in names.items()]
    controlled = [shown(everywhere[name]["lc_win_rate"]) for name in names]
    above = sum(float(row["low"]) > 0.5 for row in cells)
    assert all(float(row["low"]) > 0.5 for row in everywhere.values())
    assert all(float(row["high"]) >= 0.5 for row in cells), "none is decided against SALSA"
    middle = next(row for row in read(REPLICATED, "equal_kl") if row["model"] == "all" and row["measure"] == "reward")
    low, high = (
        sum(
            float(row[name])
            for row in read(REPLICATED, "equal_kl")
            if row["measure"] == "reward" and row["model"] != "all"
        )
        / 3
        for name in ("kl_low", "kl_high")
    )
    assert middle["comparison"] == "salsa_vs_ppo"
    start = claims["reference_beats_start"]["estimate"]
    at_default = {
        (grid, method): number(
            sum(float(row["gold"]) for row in read(grid, "frontier") if (row["method"], row["beta"]) == (method, "0.2"))
            / 3
        )
        for grid in GRIDS
        for method in BETAS
    }
    decayed = {method: (at_default[REPLICATED, method], at_default["decayed-sft", method]) for method in BETAS}
    gains = [number(found[comparison, "gold"]) for comparison in ("ppo_vs_sft", "salsa_vs_sft")]
    return [
        f"PPO gains {gains[0]} over SFT 1, and SALSA {gains[1]}.",
        f"Win rates over all models are {wins[0]}, {wins[1]} and {wins[2]}, and all three intervals are above one half",
        f"At equal answer lengths they are {controlled[0]}, {controlled[1]} and {controlled[2]},",
        f"{('no', 'One', 'Two', 'Three', 'Four', 'Five')[above]} of nine pairs of model and benchmark are decided",
        f"SALSA's win rate reaches from {shown(single['pair_low'])} to {shown(single['pair_high'])}.",
        f"on average {low:.1f} to {high:.1f} nats",
        f"ends {-found['salsa_vs_ref_sft2', 'kl_sft']:.2f} nats further",
        f"SALSA's win rate is {shown(claims['wins_more_often']['estimate'])} against PPO, and {shown(start)} against",
        f"PPO's gold reward on held-out prompts is {decayed['ppo'][0]} after SFT at a constant rate",
        f"and {decayed['ppo'][1]} after SFT that ends at zero;",
        f"SALSA's is {decayed['salsa'][0]} and {decayed['salsa'][1]}.",
    ]


def test_the_text_of_the_answer_has_the_figures_of_the_run():
    assert_page_says(PAGE, sentences())
    for claim in ("average_beats_other_sft", "weights_beat_penalties"):
        row = next(row for row in over_all(read(REPLICATED, "claims")) if row["claim"] == claim)
        assert float(row["low"]) >= 0.5 - 0.04 and float(row["high"]) <= 0.5 + 0.04, "more than 0.04 is ruled out"


def test_what_the_text_says_of_the_two_further_grids_is_so():
    found = {grid: {row["claim"]: row["verdict"] for row in over_all(read(grid, "claims"))} for grid in GRIDS}
    shared = {name: verdict for name, verdict in found[REPLICATED].items() if name in found["reward-models"]}
    assert len(shared) == 8 and found["reward-models"] == shared
    no_better = ("wins_more_often", "earns_more_reward", "deviates_further", "is_better_in_truth")
    assert {found["decayed-sft"][name] for name in no_better} == {"undecided"}
    assert found["decayed-sft"]["is_more_than_a_weaker_penalty"] == "contradicted"


@pytest.mark.parametrize(
    "lines",
    [
        lambda: verdicts(REPLICATED, ("abstract", "ours")),
        by_model,
        equal_kl,
        lambda: by_beta(REPLICATED, BETAS, MEASURES),
        ablations,
        lambda: verdicts(REPLICATED, ("ablations",)),
        over_all_by_grid,
        equal_kl_by_grid,
    ],
    ids=["verdicts", "models", "equal KL", "betas", "ablations", "why", "grids", "equal KL of the grids"],
)
def test_the_tables_of_the_answer_are_those_of_the_run(lines):
    assert_page_has(PAGE, lines())
