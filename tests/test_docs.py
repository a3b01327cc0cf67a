"""What the docs name has to exist: tests, and the messages that troubleshooting goes by."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Messages of other programs, and words that are none.
FOREIGN = {
    "CUDA out of memory",
    "revision: String should match pattern …",
    "sbatch: Requested node configuration is not available",
}


def test_every_test_that_the_docs_name_is_there():
    named = {
        found
        for page in ROOT.glob("docs/*.md")
        for found in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page.read_text())
    }
    assert len(named) > 15
    missing = [f"{file}::{name}" for file, name in named if f"def {name}(" not in (ROOT / file).read_text()]
    assert not missing


def messages() -> list[str]:
    """The project's strings; what an f-string fills in is an ellipsis."""
    found = []
    for path in [*ROOT.glob("salsa/**/*.py"), *ROOT.glob("eval/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found + [path.read_text() for path in ROOT.glob("rules/*.smk")]


def test_the_messages_that_troubleshooting_goes_by_are_the_programs_own():
    rows = re.findall(r"^\| (.+?) \|", (ROOT / "docs/troubleshooting.md").read_text(), re.MULTILINE)
    quoted = {phrase for row in rows for phrase in re.findall(r"`([^`]+)`", row) if phrase.count(" ") > 1} - FOREIGN
    assert len(quoted) >= 12
    known = messages()
    unknown = {
        phrase
        for phrase in quoted
        for part in phrase.removeprefix("error: ").split("…")
        if not any(part.strip() in message for message in known)
    }
    assert not unknown
