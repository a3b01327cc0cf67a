"""The tasks of the mini world: eight families, named after MT-Bench's categories.

A family writes prompts and solves them. The solution depends only on the prompt's text, so the gold reward, the gold
judge and a reader can all compute it. A second turn asks for a change of the first answer.
"""

import itertools
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

NAMES = ("Tom", "Ann", "Bob", "Sue", "Max", "Eva", "Jim", "Lea", "Sam", "Ida")
COLOURS = ("red", "blue", "green", "white", "black", "pink", "brown", "grey")
THINGS = ("hat", "cup", "lamp", "coat", "ball", "book", "ring", "boat", "key", "bell", "drum", "chair")
PERSONAS = {"pirate": "ahoy", "king": "hark", "robot": "beep", "wizard": "behold", "cowboy": "howdy", "ghost": "boo"}
KINDS = {
    "bird": ("robin", "eagle", "owl", "crow"),
    "fish": ("trout", "shark", "tuna", "carp"),
    "mammal": ("dog", "cow", "horse", "whale"),
    "insect": ("bee", "moth", "wasp", "beetle"),
}
KIND_OF = {animal: kind for kind, animals in KINDS.items() for animal in animals}
CAPITALS = {
    "France": "Paris",
    "Italy": "Rome",
    "Spain": "Madrid",
    "Japan": "Tokyo",
    "Egypt": "Cairo",
    "Peru": "Lima",
    "Norway": "Oslo",
    "Greece": "Athens",
}
_PAIRS = (("hot", "cold"), ("tall", "short"), ("fast", "slow"), ("old", "new"), ("rich", "poor"), ("dark", "light"))
OPPOSITES = {**dict(_PAIRS), **{b: a for a, b in _PAIRS}}
NUMBERS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen"),
)
NUMBER_OF = {word: value for value, word in enumerate(NUMBERS)}

Items = tuple[str, ...]


@dataclass(frozen=True)
class Family:
    """A family of tasks. `write(rng, size)` makes a prompt with `size` items.

    `solve` returns the items of the correct answer in order, or None if the text is not a prompt of this family.
    `distractors` are words for plausible wrong answers.
    """

    write: Callable[[random.Random, int], str]
    solve: Callable[[str], Items | None]
    distractors: Sequence[str]


def join(items: Sequence[str]) -> str:
    """Join items as in running text: a, b and c."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def split(text: str) -> Items:
    """The inverse of `join`."""
    return tuple(re.split(r", | and ", text))


def _pattern(regex: str, answer: Callable[[re.Match[str]], Sequence[str]]) -> Callable[[str], Items | None]:
    """A solver for prompts that match `regex`; it returns None for other prompts and for unknown words."""
    compiled = re.compile(regex)

    def solve(prompt: str) -> Items | None:
        match = compiled.fullmatch(prompt)
        if not match:
            return None
        try:
            return tuple(answer(match))
        except (KeyError, IndexError):
            return None

    return solve


def _first(*solvers: Callable[[str], Items | None]) -> Callable[[str], Items | None]:
    """A solver that tries several solvers in turn."""
    return lambda prompt: next((items for solver in solvers if (items := solver(prompt)) is not None), None)


def _write_writing(rng: random.Random, size: int) -> str:
    phrases = [f"{rng.choice(COLOURS)} {thing}" for thing in rng.sample(THINGS, size)]
    return f"Write a line that names the {join(phrases)}."


def _write_roleplay(rng: random.Random, size: int) -> str:
    return f"Speak as a {rng.choice(list(PERSONAS))} and greet {join(rng.sample(NAMES, size))}."


def _write_extraction(rng: random.Random, size: int) -> str:
    owners, things = rng.sample(NAMES, size), rng.sample(THINGS, size)
    facts = [f"{owner} has a {rng.choice(COLOURS)} {thing}." for owner, thing in zip(owners, things, strict=True)]
    return f"{' '.join(facts)} Which {rng.choice(('colours', 'things', 'people'))} are named?"


def _solve_extraction(found: re.Match[str]) -> list[str]:
    column = {"people": 0, "colours": 1, "things": 2}[found.group("what")]
    return [fact[column] for fact in re.findall(r"(\w+) has a (\w+) (\w+)\.", found.group("facts"))]


def _write_reasoning(rng: random.Random, size: int) -> str:
    people = rng.sample(NAMES, size + 1)
    facts = [f"{taller} is taller than {shorter}." for taller, shorter in itertools.pairwise(people)]
    rng.shuffle(facts)
    return f"{' '.join(facts)} List them from the {rng.choice(('tallest', 'shortest'))}."


def _solve_reasoning(found: re.Match[str]) -> list[str]:
    below = dict(re.findall(r"(\w+) is taller than (\w+)\.", found.group("facts")))
    person = next(iter(set(below) - set(below.values())))
    order = [person]
    while order[-1] in below:
        order.append(below[order[-1]])
    return order if found.group("end") == "tallest" else order[::-1]


def _write_math(rng: random.Random, size: int) -> str:
    return f"Add {NUMBERS[rng.randint(1, 5)]} to {join([NUMBERS[n] for n in rng.sample(range(11), size)])}."


def _solve_math(match: re.Match[str]) -> list[str]:
    return [NUMBERS[NUMBER_OF[match.group("add")] + NUMBER_OF[word]] for word in split(match.group("to"))]


def _write_coding(rng: random.Random, size: int) -> str:
    return f"{rng.choice(('Reverse', 'Double each in'))} the list {join(rng.sample(THINGS, size))}."


def _solve_coding(match: re.Match[str]) -> Sequence[str]:
    words = split(match.group("words"))
    return words[::-1] if match.group("how") == "Reverse" else [f"{word} {word}" for word in words]


def _write_stem(rng: random.Random, size: int) -> str:
    return f"What kind of animal is the {join(rng.sample(list(KIND_OF), size))}?"


def _write_humanities(rng: random.Random, size: int) -> str:
    if rng.random() < 0.5:
        return f"What is the capital of {join(rng.sample(list(CAPITALS), size))}?"
    return f"What is the opposite of {join(rng.sample(list(OPPOSITES), size))}?"


FAMILIES: dict[str, Family] = {
    "writing": Family(
        _write_writing,
        _pattern(r"Write a line that names the (.+)\.", lambda match: split(match.group(1))),
        [f"{colour} {thing}" for colour in COLOURS for thing in THINGS],
    ),
    "roleplay": Family(
        _write_roleplay,
        _pattern(
            r"Speak as a (\w+) and greet (.+)\.",
            lambda match: [f"{PERSONAS[match.group(1)]} {name}" for name in split(match.group(2))],
        ),
        [f"{word} {name}" for word in PERSONAS.values() for name in NAMES],
    ),
    "reasoning": Family(
        _write_reasoning,
        _pattern(
            r"(?P<facts>(?:\w+ is taller than \w+\. )+)List them from the (?P<end>tallest|shortest)\.", _solve_reasoning
        ),
        NAMES,
    ),
    "math": Family(_write_math, _pattern(r"Add (?P<add>\w+) to (?P<to>.+)\.", _solve_math), NUMBERS),
    "coding": Family(
        _write_coding, _pattern(r"(?P<how>Reverse|Double each in) the list (?P<words>.+)\.", _solve_coding), THINGS
    ),
    "extraction": Family(
        _write_extraction,
        _pattern(r"(?P<facts>(?:\w+ has a \w+ \w+\. )+)Which (?P<what>\w+) are named\?", _solve_extraction),
        (*NAMES, *COLOURS, *THINGS),
    ),
    "stem": Family(
        _write_stem,
        _pattern(
            r"What kind of animal is the (.+)\?", lambda match: [KIND_OF[animal] for animal in split(match.group(1))]
        ),
        list(KINDS),
    ),
    "humanities": Family(
        _write_humanities,
        _first(
            _pattern(
                r"What is the capital of (.+)\?", lambda match: [CAPITALS[name] for name in split(match.group(1))]
            ),
            _pattern(r"What is the opposite of (.+)\?", lambda match: [OPPOSITES[w] for w in split(match.group(1))]),
        ),
        (*CAPITALS.values(), *OPPOSITES),
    ),
}

FOLLOW_UPS: dict[str, Callable[[Items], Items]] = {
    "Now say it in reverse order.": lambda items: items[::-1],
    "Now say only the first one.": lambda items: items[:1],
    "Now say only the last one.": lambda items: items[-1:],
}


def family_of(prompt: str) -> str | None:
    """The family of a first turn; None if it is not a task of the mini world."""
    return next((name for name, family in FAMILIES.items() if family.solve(prompt) is not None), None)


def solve(user_turns: Sequence[str]) -> Items | None:
    """Items of the correct answer to the last user turn; None if the dialogue is not a task of the mini world."""
    family = family_of(user_turns[0])
    items = FAMILIES[family].solve(user_turns[0]) if family is not None else None
    for turn in user_turns[1:]:
        if items is None or turn not in FOLLOW_UPS:
            return None
        items = FOLLOW_UPS[turn](items)
    return items
