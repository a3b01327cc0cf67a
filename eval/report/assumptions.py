"""Where a grid's settings come from: the paper's abstract, a public recipe, or our own assumption.

The config key `assumptions` names the file. Its `settings` has an entry for each setting by dotted name, and `claims`
one for each claim; `machinery` lists patterns of settings that affect how a grid runs but not its results.
"""

import json
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ValidationError

from salsa.config.algorithms import WarpRun
from salsa.config.config import Config
from salsa.config.fields import Section
from salsa.config.methods import Method
from salsa.config.replicates import Replicate
from salsa.config.sections import BenchmarkSettings, Comparison, DataSource, Download, HubModel, Lora
from salsa.runtime.errors import UserError
from salsa.runtime.settings import describe

SHOWN_OF_A_DIGEST = 12
Pins = Mapping[str, Download]


class Assumption(Section):
    """The recorded value of a setting and its source."""

    value: Any
    standing: Literal["abstract", "assumed"]
    source: str


class ClaimSource(Section):
    """Where a claim of config/claims.yaml comes from; for the abstract, what it says in our words."""

    standing: Literal["abstract", "ours"]
    source: str


class Assumptions(Section):
    """The contents of the file."""

    settings: dict[str, Assumption]
    claims: dict[str, ClaimSource]
    machinery: list[str]

    @classmethod
    def none(cls) -> "Assumptions":
        """For a grid without the file."""
        return cls(settings={}, claims={}, machinery=["*"])


def load_assumptions(path: Path) -> Assumptions:
    """Load and validate the file."""
    try:
        return Assumptions.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UserError(f"{path}: cannot read it: {error.strerror}; correct the config's assumptions") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML: {str(error).splitlines()[0]}; fix it") from None
    except ValidationError as error:
        raise UserError(describe(error, str(path))) from None


def _rows_of(source: DataSource) -> str:
    place = source.path or f"{source.hub} {source.split} @{str(source.revision)[:SHOWN_OF_A_DIGEST]}"
    return place if source.limit is None else f"{place}, {source.limit} rows"


def _file(path: str, pins: Pins) -> str:
    pin = pins.get(path)
    return f"{Path(path).name} sha256 {pin.sha256[:SHOWN_OF_A_DIGEST]}" if pin else path


def _leaves(name: str, value: Any, pins: Pins) -> Iterator[tuple[str, Any]]:
    match value:
        case DataSource():
            yield name, _rows_of(value)
        case HubModel():
            yield f"{name}.id", f"{value.id} @{value.revision[:SHOWN_OF_A_DIGEST]}"
            yield from _leaves(f"{name}.chat_template", value.chat_template, pins)
            yield from _leaves(f"{name}.pad_token", value.pad_token, pins)
        case Lora():
            yield name, value.model_dump()
        case Method(warp_run=WarpRun()):
            return  # a run of a method that is listed
        case Method():
            absent = {key for key in ("reward", "warp") if getattr(value, key) is None}
            yield from _leaves(name, value.model_dump(exclude={"warp_run", *absent}), pins)
        case Replicate():
            yield name, value.model_dump(exclude_defaults=True)
        case Comparison():
            yield name, f"{value.a} against {value.b}"
        case BenchmarkSettings():
            path = value.questions.path
            yield f"{name}.questions", _file(path, pins) if path else _rows_of(value.questions)
            for key in ("references", "judge_prompts"):
                yield f"{name}.{key}", _file(path, pins) if (path := getattr(value, key)) else None
            for key in ("kind", "max_new_tokens", "temperature", "grade"):
                yield f"{name}.{key}", getattr(value, key)
        case BaseModel():
            for key in type(value).model_fields:
                yield from _leaves(f"{name}.{key}" if name else key, getattr(value, key), pins)
        case Mapping():
            for key, entry in value.items():
                yield from _leaves(f"{name}.{key}", entry, pins)
        case tuple():
            yield name, list(value)
        case _:
            yield name, value


def settings_of(config: Config) -> dict[str, Any]:
    """All settings of a grid by dotted name, including defaults; data sources and files appear with their pins."""
    pins = {path: pin for benchmark in config.benchmarks.values() for path, pin in benchmark.download.items()}
    return dict(_leaves("", config, pins))


def as_text(value: Any) -> str:
    """A setting's value on one line."""
    return value if isinstance(value, str) else json.dumps(value)


def compared(assumptions: Assumptions, settings: Mapping[str, Any]) -> list[dict[str, str]]:
    """One row {setting, value, standing, source} per setting that is not machinery, in config order.

    A value that differs from the recorded one has standing `changed`.
    """
    rows = []
    for name, value in settings.items():
        if any(fnmatch(name, pattern) for pattern in assumptions.machinery):
            continue
        match assumptions.settings.get(name):
            case None:
                standing, source = "not recorded", ""
            case Assumption(value=recorded) if recorded != value:
                standing, source = "changed", f"recorded: {as_text(recorded)}"
            case entry:
                standing, source = entry.standing, entry.source
        rows.append({"setting": name, "value": as_text(value), "standing": standing, "source": source})
    return rows
