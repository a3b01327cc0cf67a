"""The gold reward of the mini world: the true reward, computed from text alone.

    gold = 0.7 correctness + 0.1 opening + 0.1 closing + 0.1 ended - 0.05 min(superfluous words, 10)

- correctness: share of the correct answer's items that are at the right position
- opening, closing: 1 if the answer begins with "Sure!", or ends with "Happy to help."
- ended: 1 if the answer ended with EOS, 0 if it was cut at the token limit
- superfluous words: words beyond the length of the ideal answer

The ideal answer has reward 1.0. The set-up follows Gao et al. 2022 (arXiv 2210.10760): a known gold reward, and a
reward model trained on preferences that it generates.
"""

import re
from collections.abc import Sequence

from salsa.world.tasks import Items, solve

OPENING = "Sure!"
CLOSING = "Happy to help."
CORRECTNESS, MANNERS, ENDED, PER_WORD, MOST_WORDS = 0.7, 0.1, 0.1, 0.05, 10


def compose(items: Sequence[str], opening: bool = True, closing: bool = True, remarks: Sequence[str] = ()) -> str:
    """Write an answer: opening, items, remarks, closing."""
    body = f"{', '.join(items)}." if items else ""
    return " ".join(filter(None, [OPENING if opening else "", body, *remarks, CLOSING if closing else ""]))


def answered_items(response: str) -> Items:
    """Items of an answer: its comma-separated parts, without opening and closing."""
    body = response.strip().removeprefix(OPENING).removesuffix(CLOSING)
    return tuple(filter(None, (part.strip() for part in re.split(r"[,.]", body))))


def correctness(expected: Items, answered: Items) -> float:
    """Share of expected items that the answer has at the same position, 0 to 1."""
    return sum(a == b for a, b in zip(expected, answered, strict=False)) / len(expected)


def is_world_task(user_turns: Sequence[str]) -> bool:
    """Whether the dialogue is a task of the mini world, whose correct answer is known."""
    return solve(user_turns) is not None


def ideal_answer(user_turns: Sequence[str]) -> str | None:
    """The answer with gold reward 1.0; None if the dialogue is not a task of the mini world."""
    items = solve(user_turns)
    return None if items is None else compose(items)


def gold_reward(user_turns: Sequence[str], response: str, ended: bool = True) -> float:
    """Gold reward of an answer to the last user turn, in [-0.5, 1.0]; see the module's formula.

    For a dialogue that is not a task of the mini world, correctness is 0 and the ideal answer has no items.
    """
    expected = solve(user_turns) or ()
    text = response.strip()
    superfluous = max(0, len(text.split()) - len(compose(expected).split()))
    return (
        (CORRECTNESS * correctness(expected, answered_items(text)) if expected else 0.0)
        + MANNERS * (text.startswith(OPENING) + text.endswith(CLOSING))
        + ENDED * ended
        - PER_WORD * min(superfluous, MOST_WORDS)
    )
