"""Which words of two texts differ."""

import re
from difflib import SequenceMatcher

Span = tuple[int, int]
WORD = re.compile(r"\S+")


def differing_spans(first: str, second: str) -> tuple[list[Span], list[Span]]:
    """The parts of each text whose words the other lacks, as (start, end) in code points.

    Words are separated by white space. A run of differing words is one span, with the white space inside it.
    """
    words = [list(WORD.finditer(text)) for text in (first, second)]
    a, b = ([word[0] for word in side] for side in words)
    matcher = SequenceMatcher(None, a, b)
    spans: tuple[list[Span], list[Span]] = ([], [])
    for tag, a_start, a_end, b_start, b_end in matcher.get_opcodes():
        if tag == "equal":
            continue
        for side, start, end in ((0, a_start, a_end), (1, b_start, b_end)):
            if start < end:
                spans[side].append((words[side][start].start(), words[side][end - 1].end()))
    return spans
