"""The base class of benchmarks. Its defaults are MT-Bench's pairwise protocol."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from eval.protocols.templates import Template
from eval.protocols.verdicts import READERS, Verdict, verdict

Row = dict[str, Any]
Texts = tuple[str, ...]
POINTS = {"a": 1.0, "tie": 0.5, "b": 0.0}
# Reasons for a missing verdict: the question does not fit the policy's context; the prompt does not fit the judge's;
# the judge refused; the endpoint gave no reply or no text; the reply was cut at judge.max_tokens; it holds no verdict.
MISSING_REASONS = ("unanswered", "too_long", "refused", "failed", "cut", "unparsed")


def missing_verdicts(games: Sequence[Row]) -> list[str]:
    """The reason for each game of a match without a verdict. A match without games lacks both: `unanswered`."""
    outcomes = [str(game["outcome"]) for game in games] or ["unanswered"] * 2
    return [outcome for outcome in outcomes if outcome not in POINTS]


def format_counts(missing: Mapping[str, int]) -> str:
    """Counts by reason as text: `3 too long, 1 unparsed`."""
    return ", ".join(f"{missing[why]} {why.replace('_', ' ')}" for why in MISSING_REASONS if missing.get(why))


@dataclass(frozen=True)
class Question:
    """A question with one or more user turns; `reference` holds one reference answer per turn, for the judge."""

    question_id: str
    category: str
    turns: Texts
    reference: Texts | None = None
    flags: Texts = ()


class Benchmark(ABC):
    """A benchmark and its protocol.

    By default the judge sees both orders of two answers and replies [[A]], [[B]] or [[C]] (tie); a win needs the same
    winner in both orders, anything else is a tie.
    """

    grammar: ClassVar[str] = "mt_bench_pair"  # form of pairwise verdicts: a key of eval.protocols.verdicts.READERS
    by_game: ClassVar[bool] = False  # whether one game counts when the other has no verdict
    again: ClassVar[str | None] = None  # template of a follow-up that asks for a missing verdict
    unnamed_template: ClassVar[str | None] = None  # template of archived prompts that name none
    templates: ClassVar[Mapping[str, Template]] = {}  # in addition to eval/protocols/judge_prompts.yaml

    @abstractmethod
    def question(self, row: Row, references: Mapping[str, Texts]) -> Question:
        """Convert a row of the question file. `references` holds reference answers by question id, if configured.

        Raise a KeyError or ValueError to say what is wrong with the row.
        """

    def temperature(self, question: Question) -> float:
        """Sampling temperature for a question, if the config sets none."""
        return 0.0

    def pair_template(self, question: Question, turn: int) -> str:
        """Name of the template that compares two answers to a turn (from 1)."""
        return ("pair-math-v1" if question.reference else "pair-v2") + ("-multi-turn" if turn > 1 else "")

    def single_template(self, question: Question, turn: int) -> str:
        """Name of the template that grades one answer."""
        return ("single-math-v1" if question.reference else "single-v1") + ("-multi-turn" if turn > 1 else "")

    def read(self, text: str) -> Verdict | None:
        """Read a pairwise verdict from a judge's reply; None without one."""
        label = READERS[self.grammar](text)
        return None if label is None else verdict(str(label))

    def points(self, games: Sequence[Row]) -> tuple[float, float]:
        """Points of policy a and the weight (above 0) of a match.

        Each game has an `outcome` a, b or tie. There are two games, or at least one with `by_game`.
        """
        first, second = (game["outcome"] for game in games)
        return (POINTS[first] if first == second else 0.5), 1
