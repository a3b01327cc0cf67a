"""The layout of the source: rooms with docstrings, one-way imports, tests in matching folders."""

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.documented import ROOT

HOUSES = ("salsa", "eval")
ROOMS = [path for house in HOUSES for path in sorted((ROOT / house).iterdir()) if (path / "__init__.py").exists()]


def modules(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*.py")) if path.name != "__init__.py"]


def imported(path: Path) -> Iterator[str]:
    """Dotted names that a file imports from the project, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def room_of(name: str) -> str | None:
    house, _, rest = name.partition(".")
    return f"{house}.{rest.partition('.')[0]}" if house in HOUSES and rest else None


def test_imports_between_rooms_go_one_way():
    graph = {}
    for room in ROOMS:
        own = f"{room.parent.name}.{room.name}"
        graph[own] = {room_of(name) for path in room.rglob("*.py") for name in imported(path)} - {None, own}
    assert len(graph) > 15 and graph["eval.judging"] > {"eval.ledger", "salsa.config"}
    list(graphlib.TopologicalSorter(graph).static_order())  # a CycleError names the circle


def test_no_file_of_salsa_names_eval():
    naming = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in (ROOT / "salsa").rglob("*.py")
        for name in [
            *imported(path),
            *(node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)),
        ]
        if isinstance(name, str) and name.startswith("eval.")
    ]
    assert not naming


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: f"{room.parent.name}/{room.name}")
def test_room_says_what_comes_in_and_out_and_which_file_to_open_first(room):
    text = ast.get_docstring(ast.parse((room / "__init__.py").read_text())) or ""
    named = {line.partition(":")[0]: line for line in text.splitlines() if ":" in line}
    assert {"In", "Out", "Open first"} <= named.keys()
    files = [word.strip("(),.;") for word in named["Open first"].split() if word.strip("(),.;").endswith(".py")]
    assert files and all((room / file).exists() for file in files)
    assert 2 <= len(modules(room)) <= 12
    assert (ROOT / "tests" / room.parent.name / room.name).is_dir()


def test_no_module_is_outside_a_room():
    assert {path.name for house in HOUSES for path in (ROOT / house).glob("*.py")} == {"__init__.py", "__main__.py"}
