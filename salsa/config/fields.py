"""Field types of config sections."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Commit = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$", description="A commit; branches and tags can move")]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]


def distinct(seeds: list[int]) -> list[int]:
    """Refuse duplicate seeds: one model would count as two."""
    if twice := sorted({seed for seed in seeds if seeds.count(seed) > 1}):
        raise ValueError(f"seed {twice[0]} is listed twice: list each seed once")
    return seeds


Seeds = Annotated[list[Count], Field(min_length=1), AfterValidator(distinct)]


class Section(BaseModel):
    """Base class of config sections; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())
