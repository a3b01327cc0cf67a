"""List a grid's possible outputs, and suggest one for a misspelt target."""

import difflib
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

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
