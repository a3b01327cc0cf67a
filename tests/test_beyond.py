"""docs/beyond.md quotes the committed tables of two grids; its tables and figures are computed from them here."""

import itertools
import math

import pandas as pd
import pytest

from eval.tables.at_equal_kl import over_runs
from eval.tables.formats import number
from tests.page_tables import ROOT, assert_page_has, assert_page_says, by_beta, limits, line, over_all, read, verdicts

PAGE = ROOT / "docs/beyond.md"
METHODS = "beyond"
POLICIES = {  # methods of that grid, and their betas
    "ppo": (0.1, 0.2, 0.4),
    "salsa": (0.2,),
    "rloo": (0.2,),
    "salsa-rloo": (0.2,),
    "grpo": (0.4,),
    "salsa-grpo": (0.4,),
    "dpo": (0.3,),
    "soup-dpo": (0.3,),
    "salsa-a25": (0.2,),
    "salsa-a75": (0.2,),
    "warp": (0.2,),
    "warm": (0.2,),
}
SOUP_HELPS = ("salsa_vs_ppo", "salsa_rloo_vs_rloo", "salsa_grpo_vs_grpo", "soup_dpo_vs_dpo")
IN_WORDS = {7: "seven"}
REWARDS = "over-optimisation"
BETAS = (0.2, 0.1, 0.03)
REWARD_MODELS = {  # of the grid of rewards, by method: the reward in words, and the version of its reward model
    "ppo": ("one reward model", ""),
    "warm": ("average weights of three (WARM)", "weights-3"),
    "mean-reward": ("mean score of three", "mean-3"),
    "min-reward": ("smallest score of three", "min-3"),
}
MEASURES = ("reward_trained_on", "reward_held_out", "gold")
COMPARED = {"warm": "warm_vs_ppo", "mean-reward": "mean_reward_vs_ppo", "min-reward": "min_reward_vs_ppo"}
MODELS = ("llama-mini", "mistral-mini", "gemma-mini", "all")


def differences() -> list[str]:
    """Each comparison of methods: at equal KL, in so many pairs of runs, and at each method's own beta on questions."""
    equal = {(row["comparison"], row["measure"]): row for row in read(METHODS, "equal_kl") if row["model"] == "all"}
    rows = [row for row in read(METHODS, "improvements") if row["model"] == "all"]
    on_questions = {(row["comparison"], row["measure"]): row for row in rows}
    lines = []
    for comparison in dict.fromkeys(name for name, _ in equal):
        gold = equal[comparison, "gold"]
        cells = [limits(equal[comparison, name], "difference") for name in ("gold", "reward_held_out")]
        cells += [limits(on_questions[comparison, name], "difference") for name in ("gold", "kl_sft")]
        lines.append(line(comparison.replace("_vs_", " − ").replace("_", "-"), gold["replicates"], *cells))
    return lines


def accuracies() -> list[str]:
    """How often each reward orders a pair as the annotator and as the gold reward; and that less the single one's."""
    rows = pd.DataFrame(read(REWARDS, "reward_model")).set_index(["version", "model", "replicate"])
    rows = rows[["accuracy", "accuracy_gold"]].astype(float)
    single = rows.loc[""].drop(index="held-out", level="replicate")
    lines = []
    for words, version in REWARD_MODELS.values():
        own = rows.loc[version].reindex(single.index)
        cells = []
        for name in ("accuracy", "accuracy_gold"):
            cells.append(number(own[name].mean()))
            if version:
                gain = over_runs(
                    (own - single)[name].reset_index(drop=True), single.reset_index()[["model", "replicate"]], 0.95
                )
                cells[-1] += f" ({gain.estimate:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}])"
        lines.append(line(words, *cells))
    return lines


def at_one_beta() -> list[str]:
    """Each combined reward minus one reward model at mini's beta, over the questions of all benchmarks."""
    rows = {(row["comparison"], row["measure"]): row for row in over_all(read(REWARDS, "improvements"))}
    measures = ("reward_held_out", "gold", "kl_sft")
    return [
        line(REWARD_MODELS[method][0], *(limits(rows[comparison, name], "difference") for name in measures))
        for method, comparison in COMPARED.items()
    ]


def equal_kl_of_rewards() -> list[str]:
    """Each combined reward minus one reward model at equal KL, by model."""
    rows = {(row["comparison"], row["model"], row["measure"]): row for row in read(REWARDS, "equal_kl")}
    return [
        line(
            REWARD_MODELS[method][0],
            model,
            *(limits(rows[comparison, model, name], "difference") for name in MEASURES[1:]),
        )
        for (method, comparison), model in itertools.product(COMPARED.items(), MODELS)
    ]


def sentences() -> list[str]:
    """What the text says beside the tables."""
    rows = read(REWARDS, "frontier")

    def mean(method: str, beta: str, name: str) -> float:
        own = [float(row[name]) for row in rows if (row["method"], row["beta"]) == (method, beta)]
        return sum(own) / len(own)

    rise, fall = (mean("ppo", "0.03", name) - mean("ppo", "0.1", name) for name in ("reward_trained_on", "gold"))
    falls = [mean(method, "0.1", "gold") - mean(method, "0.03", "gold") for method in REWARD_MODELS]
    [soup] = [
        row
        for row in read("reward-models", "equal_kl")
        if (row["comparison"], row["model"], row["measure"]) == ("salsa_vs_ppo", "all", "gold")
    ]
    equal = {(row["comparison"], row["model"]): row for row in read(METHODS, "equal_kl") if row["measure"] == "gold"}
    helps = [row for (name, model), row in equal.items() if name in SOUP_HELPS and model != "all"]
    assert len(helps) == 12 and all(float(row["difference"]) > 0 for row in helps)
    decided = sum(float(row["low"]) > 0 for row in helps)
    shares = [equal[f"salsa_vs_salsa_a{share}", "all"] for share in (25, 75)]
    widest = max(abs(float(row[side])) for row in shares for side in ("low", "high"))
    return [
        f"in each of the twelve pairs of model and algorithm, and decided in {IN_WORDS[decided]} of them",
        f"Differences in gold reward of more than {math.ceil(1000 * widest) / 1000:.3f} between one half and either",
        f"PPO's reward rises by {rise:.2f}, and the gold reward falls by {-fall:.3f}",
        f"between {min(falls):.3f} and {max(falls):.3f}",
        f"was worth {limits(soup, 'difference')}",
    ]


def test_the_text_of_the_page_has_the_figures_of_the_runs():
    assert_page_says(PAGE, sentences())


@pytest.mark.parametrize(
    "lines",
    [
        accuracies,
        at_one_beta,
        lambda: by_beta(REWARDS, dict.fromkeys(REWARD_MODELS, BETAS), MEASURES),
        equal_kl_of_rewards,
        lambda: verdicts(REWARDS, ("rewards",)),
        lambda: verdicts(METHODS, ("algorithms",)),
        lambda: verdicts(METHODS, ("soups",)),
        lambda: verdicts(METHODS, ("averages",)),
        lambda: by_beta(METHODS, POLICIES, MEASURES[1:]),
        differences,
    ],
    ids=[
        "accuracies",
        "one beta",
        "betas of rewards",
        "equal KL of rewards",
        "verdicts on rewards",
        "verdicts on algorithms",
        "verdicts on soups",
        "verdicts on averages",
        "policies",
        "differences",
    ],
)
def test_the_tables_of_the_page_are_those_of_the_runs(lines):
    assert_page_has(PAGE, lines())
