"""Find the commands in the docs and run them as a reader would.

A block of `sh` whose first line says what it needs (`# Needs a GPU.`) is not run. The others run in bash in a folder
that looks like a checkout, where snakemake and make only plan (`-n`).
"""

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests import forks

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NEEDS = re.compile(r"# Needs .*\b(GPUs?|cluster|network|key)\b")
LINKED = (
    *("Makefile", "Snakefile", "pyproject.toml", "requirements.lock"),
    *("benchmarks", "config", "eval", "profiles", "rules", "salsa", "scripts"),
)
# Commands that start in a fork do so with the tests' PATH: all forks need the same environment.
FORKED = f'PATH="$OLD_PATH" exec {shlex.join(forks.PYTHON)}'
PROGRAMS = {
    "snakemake": f'{FORKED} -m snakemake --quiet rules -n "$@"',
    "make": 'exec /usr/bin/env -i PATH="$OLD_PATH" make -n "$@"',
    "python": f'exec {shlex.quote(sys.executable)} "$@"',
    "salsa": f'[ "$1" = run ] && set -- "$@" --quiet rules -n; {FORKED} -m eval.commands.main "$@"',
}


@dataclass(frozen=True)
class Block:
    page: str
    line: int  # where it begins
    language: str
    text: str

    @property
    def needs(self) -> bool:
        """Whether the block needs something that tests do not have."""
        return self.text.startswith("# Needs ")

    @property
    def of_a_grid(self) -> bool:
        """Whether the block reads a finished mini grid."""
        return re.search(r"checkpoints/mini|mini/generations|--like|salsa compare", self.text) is not None


def blocks(page: Path, language: str = "sh") -> list[Block]:
    text, name = page.read_text(), str(page.relative_to(ROOT))
    found = [Block(name, text[: m.start()].count("\n") + 1, m[1], m[2]) for m in BLOCK.finditer(text)]
    return [block for block in found if block.language == language]


def in_the_text(page: Path) -> list[Block]:
    """Complete Snakemake commands in running text: without an ellipsis or a name in capitals."""
    text = BLOCK.sub(lambda m: "\n" * m[0].count("\n"), page.read_text())
    found = [(text[: m.start()].count("\n") + 1, m[1]) for m in re.finditer(r"`(snakemake [^`]+)`", text)]
    whole = [(line, command) for line, command in found if not re.search(r"…|\b[A-Z]{2,}\b", command)]
    return [Block(str(page.relative_to(ROOT)), line, "sh", command) for line, command in whole]


def checkout(folder: Path) -> Path:
    """Make the folder look like a checkout; existing files stay."""
    for name in LINKED:
        (folder / name).symlink_to(ROOT / name)
    programs = folder / ".programs"
    programs.mkdir()
    for name, line in PROGRAMS.items():
        (programs / name).write_text("#!/bin/sh\n" + line + "\n")
        (programs / name).chmod(0o755)
    return folder


def run(block: Block, folder: Path) -> str:
    """Run a block and return what it prints. Fails if a command fails, except for a doctor that finds something
    missing.
    """
    stop = "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n"
    text = stop + re.sub(r"^(salsa doctor .*)$", r"{ \1\n} || [ $? = 1 ]", block.text, flags=re.MULTILINE)
    environment = forks.environment()
    path = environment["PATH"]
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        cwd=folder,
        env={**environment, "PATH": f"{folder / '.programs'}{os.pathsep}{path}", "OLD_PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    mistakes = [line for line in done.stdout.splitlines() if line.startswith(("error: ", "Traceback"))]
    found = [line for line in mistakes if re.fullmatch(r"error: \d+ of \d+ checks failed.*", line)]
    assert done.returncode == 0 and mistakes == found, f"{block.page}:{block.line}\n{done.stdout}"
    return done.stdout
