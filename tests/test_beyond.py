"""docs/beyond.md quotes the committed tables of a grid; its tables and figures are computed from them here."""

import itertools

import pandas as pd
import pytest

from eval.tables.at_equal_kl import over_runs
from eval.tables.formats import number
from tests.page_tables import ROOT, by_beta, limits, line, read, verdicts

PAGE = ROOT / "docs/beyond.md"
REWARDS = "over-optimisation"
BETAS = (0.2, 0.1, 0.03)
METHODS = {  # of the grid of rewards: the reward in words, and the version of its reward model
    "ppo": ("one reward model", ""),
    "warm": ("average weights of three (WARM)", "weights-3"),
    "mean-reward": ("mean score of three", "mean-3"),
    "min-reward": ("smallest score of three", "min-3"),
}
MEASURES = ("reward_trained_on", "reward_held_out", "gold")
MODELS = ("llama-mini", "mistral-mini", "gemma-mini", "all")


def accuracies() -> list[str]:
    """How often each reward orders a pair as the annotator and as the gold reward; and that less the single one's."""
    rows = pd.DataFrame(read(REWARDS, "reward_model")).set_index(["version", "model", "replicate"])
    rows = rows[["accuracy", "accuracy_gold"]].astype(float)
    single = rows.loc[""].drop(index="held-out", level="replicate")
    lines = []
    for words, version in METHODS.values():
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


def equal_kl_of_rewards() -> list[str]:
    """Each combined reward minus one reward model at equal KL, by model."""
    rows = {(row["comparison"], row["model"], row["measure"]): row for row in read(REWARDS, "equal_kl")}
    return [
        line(METHODS[method][0], model, *(limits(rows[comparison, model, name], "difference") for name in MEASURES[1:]))
        for (method, comparison), model in itertools.product(
            {"warm": "warm_vs_ppo", "mean-reward": "mean_reward_vs_ppo", "min-reward": "min_reward_vs_ppo"}.items(),
            MODELS,
        )
    ]


@pytest.mark.parametrize(
    "lines",
    [
        accuracies,
        lambda: by_beta(REWARDS, dict.fromkeys(METHODS, BETAS), MEASURES),
        equal_kl_of_rewards,
        lambda: verdicts(REWARDS, ("rewards",)),
    ],
    ids=["accuracies", "betas of rewards", "equal KL of rewards", "verdicts on rewards"],
)
def test_the_tables_of_the_page_are_those_of_the_runs(lines):
    block = "\n".join(lines())
    assert f"\n{block}\n" in PAGE.read_text(encoding="utf-8"), f"docs/beyond.md should have\n{block}"
