"""The claims as the page shows them: verdict, figures with intervals, and links to what stands behind them."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from eval.figures.of_grid import plots
from eval.grid.claims import Claim
from eval.grid.layout import ALL_MODELS, Grid
from eval.report.assumptions import Assumptions
from eval.report.claims import figure
from eval.report.headline import Row, read_table
from eval.tables.claimed import settled_by
from eval.tables.formats import NOTHING

FIGURE_OF = {  # by what a condition is measured on
    "judgments": "win_rates",
    "scores": "improvements",
    "training": "training",
    "soups": "soup",
    "frontier": "frontier",
}
SETTLING = ("estimate", "p", "confidence", "replicates_to_settle", "with_more_questions")


def cards(results: Path, grid: Grid, assumptions: Assumptions) -> list[dict[str, Any]]:
    """Each claim: its verdicts, where it comes from, its conditions, the rows of its cells, its figures, and its
    comparison if the grid has it.
    """
    by_claim: dict[str, dict[str, Any]] = {}
    made = {plot.name for plot in plots(grid)}
    for row in read_table(results, "claims"):
        name = row["claim"]
        if name not in by_claim:
            source, claim = assumptions.claims.get(name), grid.claims[name]
            by_claim[name] = {
                **{key: row[key] for key in ("claim", "says", "verdict", "verdict_holm")},
                "source": source.model_dump() if source else None,
                "figures": figures_of(claim, made),
                "comparison": claim.comparison if claim.comparison in grid.comparisons else None,
                "conditions": [],
                "to_settle": "",
                "cells": [],
            }
        card = by_claim[name]
        if row["model"] == row["benchmark"] == ALL_MODELS:
            card["conditions"].append(figure(row))
            card["to_settle"] = "; ".join(filter(None, (card["to_settle"], to_settle(row))))
        else:
            card["cells"].append([row["model"], row["benchmark"], figure(row), row["verdict"], row["n"]])
    return list(by_claim.values())


def to_settle(row: Row) -> str:
    """What would probably decide an undecided condition; nothing for others."""
    numbers = {name: float(row[name] or "nan") for name in SETTLING}
    text = settled_by({**row, **numbers, "on_claimed_side": row["on_claimed_side"] == "True"})
    return "" if text == NOTHING else text


def figures_of(claim: Claim, made: Collection[str]) -> list[str]:
    """The figures that show a claim's conditions, among those that were made."""
    names = dict.fromkeys(FIGURE_OF[condition.of] for condition in claim.conditions)
    return [name for name in names if name in made]
