"""Help and mistakes in arguments come at once: before anything heavy is imported."""

import re
import subprocess
import sys

from eval.__main__ import COMMANDS, GRID
from salsa.__main__ import COMMANDS as SALSA

HEAVY = {"torch", "transformers", "numpy", "scipy", "pandas", "datasets", "openai", "matplotlib", "snakemake"}
PARSE_ALL = """
import contextlib, io, sys
from salsa.runtime.command import parse

for module in sys.argv[1:]:
    for words, status in ((["--help"], 0), (["--no-such-option"], 2)):
        try:
            with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.redirect_stderr(said):
                parse(module, words)
        except SystemExit as end:
            assert end.code == status and "usage: " in said.getvalue(), (module, words)
        else:
            raise AssertionError((module, words))
print(*sys.modules)
"""
START = """
import sys
from salsa.__main__ import COMMANDS, main

status = main("salsa", COMMANDS)
print(f"status {status}, torch: {'torch' in sys.modules}")
"""


def test_arguments_of_all_commands_need_nothing_heavy():
    modules = {module for module, _ in {**COMMANDS, **GRID, **SALSA}.values()} | {"eval.commands.rebuild"}
    done = subprocess.run([sys.executable, "-c", PARSE_ALL, *modules], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "pydantic" in done.stdout.split() and not HEAVY & set(done.stdout.split())


def test_what_a_stage_lacks_is_one_line_before_it_loads(tmp_path):
    for stage in ("align", "dpo"):
        words = [stage, "--out", str(tmp_path / "policy")]
        done = subprocess.run([sys.executable, "-c", START, *words], capture_output=True, text=True)
        assert done.stdout == "status 1, torch: False\n"
        assert re.fullmatch("error: --init, --reference, .* missing: give them, or --config\n", done.stderr)
