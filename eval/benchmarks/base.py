"""The interface that a benchmark fills in. What it leaves open is MT-Bench's pairwise protocol."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from eval.protocols.templates import Template
from eval.protocols.verdicts import READERS, Verdict, verdict

Row = dict[str, Any]
Texts = tuple[str, ...]
POINTS = {"a": 1.0, "tie": 0.5, "b": 0.0}
# Why a game has no verdict: a policy's context has no room for the question, or the judge's for the prompt; the judge
# would not; its endpoint gave no reply or no text; the text was cut at judge.max_tokens, or says none.
WITHOUT = ("unanswered", "too_long", "refused", "failed", "cut", "unparsed")


def without_verdict(games: Sequence[Row]) -> list[str]:
    """Why games of a match have no verdict, a word each; a match that could not be asked about has none of its two."""
    said = [str(game["outcome"]) for game in games] or ["unanswered"] * 2
    return [outcome for outcome in said if outcome not in POINTS]


def counted(without: Mapping[str, int]) -> str:
    """Numbers of games or answers by why they have no verdict, as text: `3 too long, 1 unparsed`."""
    return ", ".join(f"{without[why]} {why.replace('_', ' ')}" for why in WITHOUT if without.get(why))


@dataclass(frozen=True)
class Question:
    """A question of one or more user turns; `reference` holds an answer a turn where the judge is shown one."""

    question_id: str
    category: str
    turns: Texts
    reference: Texts | None = None
    flags: Texts = ()


class Benchmark(ABC):
    """Two games a turn, the answers in either order: [[A]], [[B]] or [[C]]; games that agree are a win or a loss."""

    grammar: ClassVar[str] = "mt_bench_pair"  # of a pairwise verdict: a name in eval.protocols.verdicts.READERS
    by_game: ClassVar[bool] = False  # whether a game counts where the other has no verdict
    again: ClassVar[str | None] = None  # the template that asks once more for a verdict that is missing
    unnamed_template: ClassVar[str | None] = None  # whose prompts archives keep that name none
    templates: ClassVar[Mapping[str, Template]] = {}  # beside those of eval/protocols/judge_prompts.yaml

    @abstractmethod
    def question(self, row: Row, references: Mapping[str, Texts]) -> Question:
        """A line of the questions' file; `references` holds answers by question where the config names a file of them.

        A KeyError or ValueError says what is wrong with the line.
        """

    def temperature(self, question: Question) -> float:
        """What the question is answered at, where the config names none."""
        return 0.0

    def pair_template(self, question: Question, turn: int) -> str:
        """The name of the template for two answers to the question's turn, counted from 1."""
        return ("pair-math-v1" if question.reference else "pair-v2") + ("-multi-turn" if turn > 1 else "")

    def single_template(self, question: Question, turn: int) -> str:
        """The same for the grading of one answer."""
        return ("single-math-v1" if question.reference else "single-v1") + ("-multi-turn" if turn > 1 else "")

    def read(self, text: str) -> Verdict | None:
        """What a judge's text says of two answers; None if it holds no verdict."""
        label = READERS[self.grammar](text)
        return None if label is None else verdict(str(label))

    def points(self, games: Sequence[Row]) -> tuple[float, float]:
        """What games, whose `outcome` is a, b or tie, earn policy a, and how much that counts (above 0).

        There are two, or with `by_game` one at least.
        """
        first, second = (game["outcome"] for game in games)
        return (POINTS[first] if first == second else 0.5), 1
