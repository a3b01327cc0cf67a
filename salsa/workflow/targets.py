"""The files that a grid can make, and which of them a misspelt target probably means."""

import difflib
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

WILDCARD = re.compile(r"\{(\w+)\}")
SHOWN = 3


def outputs(patterns: Iterable[str], values: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """All paths of patterns such as results/{model}.jsonl; those with a wildcard that has no values are left out."""
    for pattern in patterns:
        names = sorted(set(WILDCARD.findall(pattern)))
        if all(name in values for name in names):
            for chosen in itertools.product(*(values[name] for name in names)):
                yield pattern.format(**dict(zip(names, chosen, strict=True)))


def nearest(target: str, known: Iterable[str]) -> list[str]:
    """The known names that are most like the target, the best first; none where nothing is like it."""
    # By parts: in long paths a wrong folder weighs little, and difflib compares every pair.
    near = [name for name in set(known) if name.count("/") == target.count("/")]

    def unlike(name: str) -> float:
        pairs = zip(target.split("/"), name.split("/"), strict=True)
        return sum(1 - difflib.SequenceMatcher(None, *pair).ratio() for pair in pairs if pair[0] != pair[1])

    ranked = sorted((unlike(name), name) for name in near)
    return [name for distance, name in ranked[:SHOWN] if distance < 1]
