"""A folder that names reward models whose scores together are one reward; it stands wherever one model's folder could.

ensemble.json: {"combine": "mean", "models": ["../llama-mini", "../llama-mini.2"], "mean": 0.01, "std": 0.93}
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from salsa.checkpoints.shards import read_json
from salsa.runtime.errors import UserError

ENSEMBLE_FILE = "ensemble.json"
Combine = Literal["mean", "min"]


def combined(combine: Combine, scores: Sequence[Sequence[float]]) -> list[float]:
    """Mean or minimum over the models for each response; `scores` has each model's scores, normalised.

    Coste et al., "Reward model ensembles help mitigate overoptimization" (2023).
    """
    columns = zip(*scores, strict=True)
    return [min(column) if combine == "min" else sum(column) / len(column) for column in columns]


@dataclass(frozen=True)
class Ensemble:
    """Reward models, how their normalised scores are combined, and what normalises the result."""

    models: list[Path]
    combine: Combine
    mean: float
    std: float

    def scores(self, of_models: Sequence[Sequence[float]]) -> list[float]:
        """Normalised scores of the ensemble from those of its models."""
        return [(score - self.mean) / self.std for score in combined(self.combine, of_models)]

    def write(self, folder: Path, place: Path) -> None:
        """Write it into `folder`, which will be moved to `place`: the models' paths are relative to that."""
        models = [os.path.relpath(model.resolve(), place.resolve()) for model in self.models]
        values = {"combine": self.combine, "models": models, "mean": self.mean, "std": self.std}
        (folder / ENSEMBLE_FILE).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def read_ensemble(folder: Path) -> Ensemble | None:
    """The ensemble in a folder; None if the folder holds a reward model."""
    if not (folder / ENSEMBLE_FILE).exists():
        return None
    values = read_json(folder / ENSEMBLE_FILE)
    models = [folder / model for model in values["models"]]
    for model in models:
        if not model.is_dir():
            raise UserError(f"{folder / ENSEMBLE_FILE}: no reward model {model}: combine the reward models again")
    return Ensemble(models, values["combine"], values["mean"], values["std"])
