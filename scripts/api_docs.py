"""Write docs/api.md from the docstrings of the library modules; `--check` only tests whether the page is current.

griffe reads the source without importing it, so signatures look as they are written.
"""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

import griffe

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/api.md"
# Each module with the names that are for users.
MODULES = {
    "salsa.alignment.library": ("train_ppo", "PpoRun"),
    "salsa.soups.library": ("average_checkpoints",),
    "eval.judging.library": ("compare", "Comparison"),
}
INTRODUCTION = """# Use the parts from Python

<!-- Written by scripts/api_docs.py (make api-docs) from docstrings: edit those. -->

Three modules are made for notebooks and scripts: train with PPO, average checkpoints, compare answers. The folder
`examples` has a script for each: [train_with_your_reward.py](../examples/train_with_your_reward.py),
[average_checkpoints.py](../examples/average_checkpoints.py), [compare_answers.py](../examples/compare_answers.py).
`pip install -e '.[train]'` installs what the first two need, `pip install -e .` is enough for the third.
"""


def text_of(thing: griffe.Object) -> Iterable[str]:
    """A docstring as Markdown: its text, then lists of arguments, results and errors."""
    for section in thing.docstring.parse("google", warnings=False) if thing.docstring else ():
        match section.kind:
            case griffe.DocstringSectionKind.text:
                yield as_code(section.value)
            case griffe.DocstringSectionKind.parameters:
                yield "\n".join(
                    ["Arguments:", "", *(f"- `{p.name}`: {one_line(p.description)}" for p in section.value)]
                )
            case griffe.DocstringSectionKind.returns:
                yield "Returns: " + " ".join(one_line(part.description) for part in section.value)
            case griffe.DocstringSectionKind.raises:
                yield "\n\n".join(f"Raises `{e.annotation}`: {one_line(e.description)}" for e in section.value)


def one_line(text: str) -> str:
    return " ".join(text.split())


def as_code(text: str) -> str:
    """Indented paragraphs become blocks of Python."""
    blocks: list[str] = []
    for paragraph in text.split("\n\n"):
        if paragraph.startswith("    "):
            code = "\n".join(line.removeprefix("    ") for line in paragraph.splitlines())
            if blocks and blocks[-1].endswith("\n```"):
                blocks[-1] = f"{blocks[-1].removesuffix('```')}\n{code}\n```"
            else:
                blocks.append(f"```python\n{code}\n```")
        else:
            blocks.append(paragraph)
    return "\n\n".join(blocks)


def signature(function: griffe.Function) -> str:
    """The function's head, one parameter a line."""
    lines, keywords = [], False
    for parameter in function.parameters:
        if parameter.name == "self":
            continue
        if parameter.kind is griffe.ParameterKind.keyword_only and not keywords:
            lines, keywords = [*lines, "*"], True
        star = "**" if parameter.kind is griffe.ParameterKind.var_keyword else ""
        default = f" = {parameter.default}" if parameter.default is not None and not star else ""
        lines.append(f"{star}{parameter.name}: {parameter.annotation}{default}")
    body = "".join(f"\n    {line}," for line in lines)
    return f"{function.name}({body}{chr(10) if body else ''}) -> {function.returns}"


def entry(thing: griffe.Object, owner: str = "") -> Iterable[str]:
    """A function, or a class with its public methods."""
    yield f"{'####' if owner else '###'} `{owner}{thing.name}`"
    if isinstance(thing, griffe.Function):
        yield f"```python\n{signature(thing)}\n```"
    yield from text_of(thing)
    if isinstance(thing, griffe.Class):
        for name, member in thing.members.items():
            if isinstance(member, griffe.Function) and not name.startswith("_"):
                yield from entry(member, f"{thing.name}.")


def page() -> str:
    """The whole page."""
    parts = [INTRODUCTION.strip()]
    for name, shown in MODULES.items():
        module = griffe.load(name, search_paths=[ROOT])
        parts += [f"## {name}", *text_of(module)]
        for thing in shown:
            parts += entry(module[thing])
    return "\n\n".join(parts) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    if not parser.parse_args().check:
        PAGE.write_text(page(), encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page():
        print("docs/api.md differs from the docstrings: run make api-docs", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
