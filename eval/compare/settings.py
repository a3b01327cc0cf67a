"""What differs between two grids beside their figures: settings, data pins, judge, versions, questions."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from eval.grid.layout import Grid
from eval.grid.results import GridResults

ABSENT = "not set"
LEFT_OUT = {"assumptions.yaml"}  # repeats the settings with their sources
CLAIMS = "claims."
Difference = tuple[str, str, str]  # what, in a, in b
Key = TypeVar("Key")


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """The values of nested mappings as text, by dotted name."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from leaves(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, str(value)


def stored_settings(folder: Path, grid: Grid) -> dict[tuple[str, str], str]:
    """Settings of all stages by (file below settings/, dotted name). Paths have GRID for the grid's name."""
    found = {}
    root = folder / "settings"
    for path in sorted(root.rglob("*.yaml")):
        if path.name in LEFT_OUT:
            continue
        place = str(path.relative_to(root).with_suffix(""))
        for name, text in leaves(yaml.safe_load(path.read_text(encoding="utf-8")) or {}):
            if not name.startswith(CLAIMS):
                found[place, name] = text.replace(f"/{grid.grid}/", "/GRID/")
    return found


def differing_claims(a: GridResults, b: GridResults) -> list[str]:
    """Names of the claims that only one grid has, or that they define differently."""
    first, second = a.grid.claims, b.grid.claims
    return [name for name in dict.fromkeys([*first, *second]) if first.get(name) != second.get(name)]


def differing(first: Mapping[Key, str], second: Mapping[Key, str]) -> Iterator[tuple[Key, str, str]]:
    """Keys with other values, in the order of the first mapping."""
    for key in dict.fromkeys([*first, *second]):
        a, b = first.get(key, ABSENT), second.get(key, ABSENT)
        if a != b:
            yield key, a, b


def differing_settings(a: GridResults, b: GridResults) -> list[Difference]:
    """Settings that differ. One that differs alike for several models is one difference."""
    models = {*a.grid.models, *b.grid.models}
    groups: defaultdict[Difference, list[str]] = defaultdict(list)
    stored = [stored_settings(results.folder, results.grid) for results in (a, b)]
    for (place, name), first, second in differing(*stored):
        model, _, stage = place.partition("/")
        of_model = bool(stage) and model in models
        groups[f"{stage if of_model else place}: {name}", first, second].append(model if of_model else "")
    return [
        (f"{what} ({', '.join(named)})" if any(named) else what, first, second)
        for (what, first, second), named in groups.items()
    ]


def differing_versions(a: GridResults, b: GridResults) -> list[Difference]:
    """Commits, package versions and machines that differ."""
    texts = [{name: ", ".join(values) for name, values in results.made_with.items()} for results in (a, b)]
    return list(differing(*texts))


def shared_questions(a: GridResults, b: GridResults) -> list[str]:
    """For each benchmark whose questions are not the same in both grids, how many are shared."""
    asked = [
        {name: set(rows["question_id"]) for name, rows in results.judgments.groupby("benchmark", sort=False)}
        for results in (a, b)
    ]
    lines = []
    for name in dict.fromkeys([*asked[0], *asked[1]]):
        first, second = (found.get(name, set()) for found in asked)
        if first != second:
            lines.append(f"{name}: {len(first & second)} questions in both, of {len(first)} and {len(second)}")
    return lines
