"""List a grid's possible outputs, and suggest one for a misspelt target."""

import difflib
import itertools
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

CONSTRAINED = re.compile(r"\{(\w+),[^}]*\}")  # a wildcard with its pattern, as Snakemake stores it
WILDCARD = re.compile(r"\{(\w+)\}")
SHOWN = 3


def outputs(patterns: Iterable[str], values: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """All paths that patterns such as results/{model}.jsonl expand to; skips patterns with an unknown wildcard."""
    for pattern in patterns:
        names = sorted(set(WILDCARD.findall(pattern)))
        if all(name in values for name in names):
            for combination in itertools.product(*(values[name] for name in names)):
                yield pattern.format(**dict(zip(names, combination, strict=True)))


def nearest(target: str, known: Iterable[str]) -> list[str]:
    """Up to three known names that resemble the target, best first."""
    # Compare folder by folder: in a long path, one wrong folder hardly changes a ratio over the whole.
    candidates = [name for name in set(known) if name.count("/") == target.count("/")]

    def distance(name: str) -> float:
        pairs = zip(target.split("/"), name.split("/"), strict=True)
        return sum(1 - difflib.SequenceMatcher(None, *pair).ratio() for pair in pairs if pair[0] != pair[1])

    ranked = sorted((distance(name), name) for name in candidates)
    return [name for far, name in ranked[:SHOWN] if far < 1]


def check_targets(workflow: Any, grid: str, values: Mapping[str, Sequence[str]]) -> None:
    """Exit if a target of this Snakemake run is no output of the grid, and suggest the most similar ones.

    `workflow` is Snakemake's object with all rules, `values` the values of their wildcards.
    """
    from snakemake.cli import get_argument_parser

    # Snakemake itself knows its targets only after it has read the rules.
    arguments, _ = get_argument_parser().parse_known_args(sys.argv[1:])
    names = [rule.name for rule in workflow.rules]
    for target in arguments.targets:
        if target in names or any(rule.is_producer(target) for rule in workflow.rules) or Path(target).exists():
            continue
        patterns = [CONSTRAINED.sub(r"{\1}", str(path)) for rule in workflow.rules for path in rule.output]
        similar = nearest(target, [*names, *outputs(patterns, values)])
        hint = f"did you mean {' or '.join(similar)}?" if similar else "snakemake --list names the rules"
        sys.exit(f"error: {target}: this grid ({grid}) makes no such file: {hint}")
