"""What a grid's replicates and questions find: the smallest difference of each claim, and what a given one takes.

The variances come from a finished grid, the columns of its `tables/claims.csv`. Runs, questions and judges of another
grid vary otherwise, so the figures are as good as the two grids are alike.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from eval.claims.settle import VARIANCE, detectable, replicates_to_find
from eval.costs.sizes import Sizes
from eval.grid.claims import PER_QUESTION, Condition, load_claims
from eval.grid.layout import ALL_MODELS
from eval.statistics.crossed import Components
from salsa.config.config import Config, all_replicates
from salsa.config.replicates import Replicate
from salsa.runtime.errors import UserError
from salsa.runtime.provenance import CODE

FINISHED = CODE / "results/mini"


@dataclass(frozen=True)
class Power:
    """A condition of a claim in the planned grid. Differences are from the claim's threshold."""

    claim: str
    figure: str
    smallest: float  # found with a probability of 80 %; NaN where the finished grid has no variance between runs
    target: float  # to be found: a given difference, or the one that the finished grid observed
    replicates: int | None  # that find the target; None beyond settle.MOST


def claims_file(folder: Path) -> Path:
    """The table of claims in a results folder."""
    return folder / "tables/claims.csv"


def finished_claims(folder: Path) -> pd.DataFrame:
    """The conditions of a finished grid over all models and benchmarks, by claim and figure."""
    path = claims_file(folder)
    try:
        rows = pd.read_csv(path)
    except OSError as error:
        raise UserError(
            f"{path}: cannot read it: {error.strerror}; name the results folder of a finished grid"
        ) from None
    if missing := [name for name in VARIANCE.values() if name not in rows]:
        raise UserError(f"{path}: no column {missing[0]}: make its tables again by salsa report")
    whole = rows[(rows["model"] == ALL_MODELS) & (rows["benchmark"] == ALL_MODELS)]
    return whole.set_index(["claim", "figure"])


def questions_of(condition: Condition, sizes: Sizes) -> int:
    """Number of questions that a figure is over; 1 for figures of whole runs."""
    if condition.of not in PER_QUESTION:
        return 1
    names = [*(condition.benchmarks or sizes.local.benchmarks), *(condition.less or [])]
    return sum(len(sizes.questions(name)) for name in names if name in sizes.local.benchmarks)


def can_be_measured(condition: Condition, config: Config) -> bool:
    """Whether a grid of this config has the figure."""
    needed = {"gold": config.world, "reward_held_out": config.reward.held_out}
    has_frontier = condition.of != "frontier" or config.frontier is not None
    return has_frontier and needed.get(condition.measure, True) is not None


def powers(sizes: Sizes, finished: pd.DataFrame, target: float | None) -> list[Power]:
    """Power of each condition that the grid can measure. `target` is the difference to find (default: the observed)."""
    config = sizes.local
    claims = load_claims(config.claims)
    replicates, models, confidence = len(all_replicates(config)), len(config.models), config.tables.confidence
    found = []
    for name, claim in claims.items():
        for condition in claim.conditions:
            if not can_be_measured(condition, config):
                continue
            key = (name, condition.figure)
            row = finished.loc[key] if key in finished.index else None
            if row is None or np.isnan(row[VARIANCE["runs"]]) or row[VARIANCE["replicates"]] < 2:
                found.append(Power(name, condition.figure, np.nan, np.nan if target is None else target, None))
                continue
            components = Components(**{field: row[column] for field, column in VARIANCE.items()})
            asked = questions_of(condition, sizes)
            smallest = detectable(components, replicates, asked, confidence, models) if replicates > 1 else np.nan
            wanted = abs(row["estimate"] - row["threshold"]) if target is None else target
            needed = replicates_to_find(wanted, components, confidence, asked, models)
            found.append(Power(name, condition.figure, smallest, wanted, needed))
    return found


def with_another_replicate(config: Config) -> Config:
    """The config with one more replicate, of SFT runs that no other has."""
    drawn = {name or "only": replicate for name, replicate in all_replicates(config).items()}
    last = list(drawn.values())[-1]
    highest = max(seed for replicate in drawn.values() for seed in replicate.sft.values())
    fresh = {role: highest + number for number, role in enumerate(last.sft, start=1)}
    reward_seed = None if last.reward_seed is None else max(r.reward_seed or 0 for r in drawn.values()) + 1
    another = Replicate(sft=fresh, reward_seed=reward_seed, rl_seeds=last.rl_seeds)
    return config.model_copy(update={"replicates": {**drawn, f"further_{len(drawn)}": another}})
