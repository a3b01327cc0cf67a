"""Claims as data: what is measured, between which methods, and what supports the claim. The grid computes verdicts."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from salsa.config.fields import Name, Section
from salsa.runtime.errors import UserError
from salsa.runtime.provenance import CODE
from salsa.runtime.settings import load_settings

Source = Literal["judgments", "scores", "training", "soups", "frontier"]
PER_QUESTION: tuple[Source, ...] = ("judgments", "scores")


class Condition(Section):
    """A figure of the comparison, and the side of a threshold on which its interval has to lie."""

    figure: str = Field(description="What the figure is, for readers")
    of: Source
    measure: str = Field(
        description="win_rate for judgments, collapsed for training, or a column of the source's table"
    )
    statistic: Literal["mean", "spread"] = Field(
        "mean", description="mean: a less b (a win rate as it is); spread: ratio of standard deviations over runs"
    )
    benchmarks: list[Name] | None = Field(None, description="Benchmarks to average over; default: all")
    less: list[Name] | None = Field(None, description="Benchmarks whose mean is subtracted")
    above: float | None = Field(None, description="Supported if the lower limit is above this")
    below: float | None = Field(None, description="Supported if the upper limit is below this: a margin")

    @model_validator(mode="after")
    def _has_a_rule(self) -> "Condition":
        if (self.above is None) == (self.below is None):
            raise ValueError("give either above or below")
        if self.statistic == "spread" and self.of != "scores":
            raise ValueError("statistic spread is of scores")
        if self.benchmarks is None and self.less is not None:
            raise ValueError("less needs benchmarks")
        return self

    @property
    def threshold(self) -> float:
        """The value of the rule."""
        value = self.above if self.below is None else self.below
        assert value is not None, "checked with the config"
        return value


class Claim(Section):
    """A claim is supported if all its conditions are, and contradicted if one is."""

    says: str
    family: str = Field(description="Claims of one family share Holm's correction")
    comparison: Name | None = Field(None, description="Method a is compared with b; not needed for soups")
    conditions: list[Condition] = Field(min_length=1)

    @model_validator(mode="after")
    def _compares(self) -> "Claim":
        if self.comparison is None and any(condition.of != "soups" for condition in self.conditions):
            raise ValueError("name a comparison: only soups do without one")
        return self


class Claims(Section):
    """The contents of the file."""

    claims: dict[Name, Claim]


def load_claims(files: Iterable[str | Path]) -> dict[str, Claim]:
    """The claims of all files. A relative path is looked for in the working folder, then in the project's."""
    found: dict[str, Claim] = {}
    for file in map(Path, files):
        path = file if file.exists() else CODE / file
        claims = load_settings(str(path), Claims, "claims").claims
        if twice := sorted(found.keys() & claims.keys()):
            raise UserError(f"{path}: claims.{twice[0]}: another file of claims has this name, too: rename one")
        found |= claims
    return found
