"""Settings of a stage: read them from the command line or a file, validate them, show them in --help."""

import json
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from salsa.runtime.errors import UserError

S = TypeVar("S", bound=BaseModel)


def describe(error: ValidationError, where: str) -> str:
    """A pydantic error as one line: the location, the first problem, and how many more there are."""
    first, *rest = error.errors()
    key = ".".join(str(part) for part in first["loc"])
    fix = {
        "extra_forbidden": "unknown key: remove it or correct its spelling",
        "missing": "required key is missing: add it",
        "value_error": str(first.get("ctx", {}).get("error")),  # without pydantic's "Value error, "
    }.get(first["type"], first["msg"])
    more = f" (and {len(rest)} more)" if rest else ""
    return ": ".join(part for part in (where, key, fix) if part) + more


def _section(data: Any, section: str) -> Any:
    """The part of nested mappings that `a.b` names; names may contain dots. KeyError if there is none."""
    if not section:
        return data
    if isinstance(data, Mapping):
        if section in data:
            return data[section]
        for key in data:
            if section.startswith(f"{key}."):
                return _section(data[key], section[len(key) + 1 :])
    raise KeyError(section)


def _read(text: str, option: str) -> tuple[str, Any]:
    """Where the settings come from, for messages, and the settings."""
    if text.lstrip().startswith("{"):
        try:
            return option, json.loads(text)
        except json.JSONDecodeError as error:
            raise UserError(f"{option}: not JSON: {error}; correct it, or give FILE.yaml#section") from None
    file, _, section = text.partition("#")
    try:
        data = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
        return text, _section(data, section)
    except OSError as error:
        raise UserError(f"{option}: cannot read {file}: {error.strerror}; give JSON or FILE.yaml#section") from None
    except yaml.YAMLError as error:
        raise UserError(f"{file}: not YAML: {str(error).splitlines()[0]}; fix it") from None
    except KeyError:
        raise UserError(f"{file}: no section {section}: name a section of this file") from None


def load_settings(text: str, schema: type[S], option: str = "--settings") -> S:
    """Load settings from JSON text, from a YAML file, or from a section of one: `FILE.yaml#section.subsection`.

    A UserError names the command-line option or the file, and the first wrong key.
    """
    where, data = _read(text, option)
    try:
        return schema.model_validate(data)
    except ValidationError as error:
        raise UserError(describe(error, where)) from None


def load_named_settings(text: str, schema: type[S], option: str) -> dict[str, S]:
    """Load a mapping of names to settings of one kind; the same forms as `load_settings`."""
    where, data = _read(text, option)
    if not isinstance(data, Mapping):
        raise UserError(f"{where}: not a mapping of names to settings: name one, such as FILE.yaml#benchmarks")
    try:
        return {name: schema.model_validate(entry) for name, entry in data.items()}
    except ValidationError as error:
        raise UserError(describe(error, where)) from None


def load_values(text: str, option: str) -> dict[str, Any]:
    """Load a mapping of any values; the same forms as `load_settings`."""
    where, data = _read(text, option)
    if not isinstance(data, Mapping):
        raise UserError(f"{where}: not a mapping: correct it")
    return dict(data)


def settings_help(schema: type[BaseModel]) -> str:
    """The keys of a section with defaults and descriptions, for --help."""
    lines = ["settings:"]
    for name, field in schema.model_fields.items():
        value = field.get_default(call_default_factory=True, validated_data={})
        lines.append(f"  {name} ({'required' if field.is_required() else f'default {json.dumps(value)}'})")
        text = field.description or ""
        lines += textwrap.wrap(text, width=100, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines)
