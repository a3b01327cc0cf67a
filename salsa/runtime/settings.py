"""Settings of a stage: parse them from the command line, validate them, show them in --help."""

import json
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

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


def load_settings(text: str, schema: type[S]) -> S:
    """Parse settings from JSON text, or from a reference `FILE.yaml#section.subsection`."""
    if text.lstrip().startswith("{"):
        where, data = "--settings", json.loads(text)
    else:
        file, _, section = text.partition("#")
        where = text
        try:
            data = yaml.safe_load(Path(file).read_text())
        except OSError as error:
            raise UserError(
                f"--settings: cannot read {file}: {error.strerror}; give JSON or FILE.yaml#section"
            ) from None
        for key in filter(None, section.split(".")):
            if not isinstance(data, Mapping) or key not in data:
                raise UserError(f"{file}: no section {section}: name a section of this file")
            data = data[key]
    try:
        return schema.model_validate(data)
    except ValidationError as error:
        raise UserError(describe(error, where)) from None


def settings_help(schema: type[BaseModel]) -> str:
    """The keys of a section with defaults and descriptions, for --help."""
    lines = ["settings:"]
    for name, field in schema.model_fields.items():
        value = field.get_default(call_default_factory=True, validated_data={})
        lines.append(f"  {name} ({'required' if field.is_required() else f'default {json.dumps(value)}'})")
        text = field.description or ""
        lines += textwrap.wrap(text, width=100, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines)
