"""docs/answer.md quotes the committed tables of the ten replicates; its tables are computed from them here."""

import csv
from pathlib import Path

import pytest

from eval.report.claims import shown
from eval.tables.formats import number

ROOT = Path(__file__).parents[1]
TABLES = ROOT / "results/replicated/mini/tables"
PAGE = ROOT / "docs/answer.md"
BETAS = {"ppo": (0.1, 0.2, 0.4), "salsa": (0.1, 0.2, 0.4)}
MEASURES = {"reward": "learned reward", "reward_held_out": "held-out reward", "gold": "gold reward"}


def read(name: str) -> list[dict[str, str]]:
    with (TABLES / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def limits(row: dict[str, str], name: str) -> str:
    """An estimate with its interval."""
    if not row[name]:
        return "–"
    return f"{shown(row[name])} [{shown(row['low'])}, {shown(row['high'])}]"


def over_all(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [row for row in rows if row["model"] == row["benchmark"] == "all"]


def verdicts(families: tuple[str, ...]) -> list[str]:
    """One line for each condition of each claim."""
    lines = []
    for row in over_all(read("claims")):
        if row["family"] in families:
            first = row["condition"] == "1"
            claim, verdict, holm = (row[name] if first else "" for name in ("says", "verdict", "verdict_holm"))
            figure = f"{row['figure']}: {limits(row, 'estimate')}"
            lines.append(f"| {claim} | {verdict} | {holm} | {figure} |")
    return lines


def by_model() -> list[str]:
    """SALSA against PPO in each model and over all, over the questions of all benchmarks."""
    wins = {
        row["model"]: row for row in read("claims") if row["claim"] == "wins_more_often" and row["benchmark"] == "all"
    }
    rows = [row for row in read("improvements") if row["comparison"] == "salsa_vs_ppo" and row["benchmark"] == "all"]
    differences = {(row["model"], row["measure"]): row for row in rows}
    return [
        f"| {model} | {limits(wins[model], 'estimate')} | "
        + " | ".join(limits(differences[model, name], "difference") for name in (*MEASURES, "kl_sft"))
        + " |"
        for model in wins
    ]


def ablations() -> list[str]:
    """SALSA against each other method, over all models and benchmarks."""
    claims = {row["claim"]: row for row in over_all(read("claims"))}
    claimed = {
        "salsa_vs_soup_start": "reference_beats_start",
        "salsa_vs_ref_sft2": "average_beats_other_sft",
        "salsa_vs_ref_perturbed": "average_beats_perturbation",
        "salsa_vs_mean_kl": "weights_beat_penalties",
        "salsa_vs_ema": "soup_beats_moving_average",
    }
    found = {(row["comparison"], row["measure"]): row for row in over_all(read("improvements"))}
    return [
        f"| `{comparison.removeprefix('salsa_vs_').replace('_', '-')}` | {limits(claims[claim], 'estimate')} | "
        + " | ".join(limits(found[comparison, name], "difference") for name in (*MEASURES, "kl_sft"))
        + " |"
        for comparison, claim in claimed.items()
    ]


def equal_kl() -> list[str]:
    """SALSA minus PPO at the same KL, by model."""
    rows = {(row["model"], row["measure"]): row for row in read("equal_kl") if row["comparison"] == "salsa_vs_ppo"}
    models = dict.fromkeys(model for model, _ in rows)
    return [
        f"| {model} | " + " | ".join(limits(rows[model, name], "difference") for name in MEASURES) + " |"
        for model in models
    ]


def by_beta() -> list[str]:
    """Means over the models and replicates of a method at a beta."""
    rows = read("frontier")
    lines = []
    for method, betas in BETAS.items():
        for beta in betas:
            own = [row for row in rows if row["method"] == method and float(row["beta"]) == beta]
            assert [row["replicates"] for row in own] == ["10"] * 3
            means = (sum(float(row[name]) for row in own) / len(own) for name in ("kl_sft", *MEASURES))
            lines.append(f"| {method} | {beta:g} | " + " | ".join(map(number, means)) + " |")
    return lines


@pytest.mark.parametrize(
    "lines",
    [lambda: verdicts(("abstract", "ours")), by_model, equal_kl, by_beta, ablations, lambda: verdicts(("ablations",))],
    ids=["verdicts", "models", "equal KL", "betas", "ablations", "why"],
)
def test_the_tables_of_the_answer_are_those_of_the_run(lines):
    block = "\n".join(lines())
    assert f"\n{block}\n" in PAGE.read_text(encoding="utf-8"), f"docs/answer.md should have\n{block}"
