"""How long each command takes to show its help, and to load its stage.

python benchmarks/starts.py [COMMAND …]    prints a table of all commands, or of these

Each figure is the CPU time of a process, the median of three.
"""

import os
import statistics
import subprocess
import sys

from eval.__main__ import COMMANDS as EVAL
from eval.__main__ import GRID
from salsa.__main__ import COMMANDS as SALSA

TIMES = 3


def cpu_seconds(*command: str) -> float:
    """CPU time of a process and its children: the median of some runs after one that fills the disk cache."""
    taken = []
    for _ in range(TIMES + 1):
        before = os.times()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        after = os.times()
        taken.append(after.children_user + after.children_system - before.children_user - before.children_system)
    return statistics.median(taken[1:])


def main() -> None:
    print("| command | help, s | loading its stage, s |\n|---|---|---|")
    for house, commands in (("salsa", {**SALSA, **GRID}), ("eval", EVAL)):
        for name in sorted(commands.keys() & set(sys.argv[1:] or commands), key=list(commands).index):
            module, _ = commands[name]
            shown = cpu_seconds(sys.executable, "-m", house, name, "--help")
            loaded = cpu_seconds(sys.executable, "-c", f"import {module}")
            print(f"| {house} {name} | {shown:.2f} | {loaded:.2f} |", flush=True)


if __name__ == "__main__":
    main()
