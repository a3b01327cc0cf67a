"""The judge calls of a grid, counted by the judge stages' own code over placeholder answers."""

import asyncio
import datetime
import functools
import math
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import yaml

from eval.benchmarks import Question, find
from eval.costs.assumed import assumed
from eval.costs.sizes import Sizes
from eval.costs.work import Calls, Cost, Waiting
from eval.grid.layout import pairs
from eval.judging.client import JudgeSession
from eval.judging.estimate import Estimate
from eval.judging.judge import Match, matches, play
from eval.judging.prompts import single_messages
from eval.ledger.calls import Ledger
from eval.protocols.templates import Templates, load_templates
from salsa.config.config import all_replicates
from salsa.config.fields import Fraction, NonNegative, Section

NOT_COUNTED = "not counted"
PRICES = Path(__file__).parent / "judge_prices.yaml"
T = TypeVar("T")


class JudgePrice(Section):
    """Price of a judge per million tokens; `ends` is the day on which its maker stops serving it."""

    input: NonNegative
    output: NonNegative
    source: str
    ends: datetime.date | None = None


class JudgePrices(Section):
    """All of judge_prices.yaml, which has the currency."""

    as_of: datetime.date
    batch: Fraction
    judges: dict[str, JudgePrice]

    def costs(self, calls: Calls) -> dict[str, float]:
        """Cost of the calls by each judge."""
        return {
            name: (calls.prompt_tokens * price.input + calls.reply_tokens * price.output) / 1e6
            for name, price in self.judges.items()
        }


@functools.cache
def judge_prices() -> JudgePrices:
    """The contents of judge_prices.yaml."""
    return JudgePrices.model_validate(yaml.safe_load(PRICES.read_text(encoding="utf-8")))


class JudgeCosts:
    """Costs of judging with a config's judge. Answers have the assumed length, and policies answer differently."""

    def __init__(self, sizes: Sizes):
        self.sizes, self.config = sizes, sizes.local
        self.settings = self.config.judge
        self.comparison, self.grading = cache(self._comparison), cache(self._grading)
        if self.settings.kind == "endpoint":
            seconds = assumed().judge_seconds
            sizes.note(f"a judge's call takes {seconds:g} s", assumed().sources.judge_seconds)
        if self.settings.batch:
            sizes.note(
                f"the results of a batch are back after {assumed().batch_hours:g} hours", assumed().sources.batch_hours
            )
        if self.settings.requests_per_minute or self.settings.tokens_per_minute:
            sizes.note("the judge's rate limits: its jobs may take longer", NOT_COUNTED)
        if self.config.calibration is not None:
            sizes.note("the calibration's calls: their number is in its archive", NOT_COUNTED)

    def pairs(self, comparison: str, replicate: str) -> list[tuple[str, str]]:
        methods, replicates = self.config.methods, all_replicates(self.config)
        return pairs(methods, replicates, self.config.comparisons[comparison], replicate)

    def _materials(self, name: str) -> tuple[list[Question], Any, Templates, dict[str, dict[str, list[str]]]]:
        """A benchmark's questions, its protocol, its judge prompts, and placeholder answers of two policies."""
        settings = self.config.benchmarks[name]
        benchmark = find(settings.kind)
        prompts = settings.judge_prompts if settings.judge_prompts and Path(settings.judge_prompts).exists() else None
        questions = self.sizes.questions(name)
        length = round(self.sizes.answer(settings.max_new_tokens) * assumed().bytes_per_token)
        answers = {
            policy: {q.question_id: [letter * length] * len(q.turns) for q in questions}
            for policy, letter in (("a", "a"), ("b", "b"))
        }
        return questions, benchmark, load_templates(prompts, benchmark.templates), answers

    def _comparison(self, name: str, count: int) -> Cost:
        """Cost of comparing `count` pairs of policies on one benchmark."""
        questions, benchmark, templates, answers = self._materials(name)

        async def work(client: JudgeSession, item: tuple[Match, str]) -> object:
            return await play(client, benchmark, templates, *item)

        games = [(match, order) for match in matches(questions, [("a", "b")], answers) for order in ("ab", "ba")]
        return self._cost(self._calls(games, work), count)

    def _grading(self, name: str) -> Cost:
        """Cost of grading one policy's answers to a benchmark."""
        questions, benchmark, templates, answers = self._materials(name)

        async def work(client: JudgeSession, item: tuple[Question, int]) -> object:
            question, turn = item
            given = answers["a"][question.question_id]
            return await client.ask(single_messages(benchmark, templates, question, turn, given[:turn]))

        turns = [(question, turn) for question in questions for turn in range(1, len(question.turns) + 1)]
        return self._cost(self._calls(turns, work), 1)

    def calibration(self) -> Cost:
        """Cost of the calibration without its calls, whose number depends on the archive."""
        return Cost(work=(Waiting(assumed().without_torch_seconds),))

    def _calls(self, items: Sequence[T], work: Callable[[JudgeSession, T], Awaitable[object]]) -> Calls:
        async def everything(folder: str) -> Estimate:
            with Ledger(Path(folder)) as ledger:
                estimate = Estimate(self.settings, ledger)
                for item in items:
                    await work(estimate, item)
                return estimate

        with tempfile.TemporaryDirectory() as folder:
            figures = asyncio.run(everything(folder)).figures()
        return Calls(figures["new"], figures["tokens_asked"], figures["tokens_answered"])

    def _cost(self, one: Calls, count: int) -> Cost:
        calls = one.times(count)
        if self.settings.batch:
            seconds = 3600 * assumed().batch_hours
        elif self.settings.kind == "gold":
            seconds = calls.number / assumed().gold_calls_per_second
        else:
            seconds = math.ceil(calls.number / self.settings.concurrency) * assumed().judge_seconds
        return Cost(work=(Waiting(assumed().without_torch_seconds + seconds),), calls=calls)
