"""What judging will cost, before anything is asked: it stands where the judge stands, and only counts."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from eval.endpoints.costs import ANSWER_TOKENS, BYTES_PER_TOKEN, Sizes, most_tokens, price, size
from eval.judging.client import Asks, Messages, call_parameters, judge_id, new_entry
from eval.ledger.calls import Entry, Ledger, call_key
from salsa.config.judge import Judge

T = TypeVar("T")


class Estimate:
    """Answers from the ledger; what it does not hold is counted, and answered with an empty text."""

    def __init__(self, settings: Judge, ledger: Ledger):
        self.settings, self.ledger = settings, ledger
        self.judge, self.parameters = judge_id(settings), call_parameters(settings)
        self.known: set[str] = set()
        self.new: dict[str, Messages] = {}
        self.perhaps: dict[str, Messages] = {}

    async def ask(self, messages: Messages, sample: int = 0) -> Entry:
        key = call_key(self.judge, self.parameters, messages, sample)
        if key in self.ledger.finished:
            self.known.add(key)
            return self.ledger.finished[key]
        # Whether a conversation that is not begun yet goes on depends on what the judge says.
        goes_on = call_key(self.judge, self.parameters, messages[:-2], sample) in self.new
        (self.perhaps if goes_on else self.new)[key] = messages
        return {**new_entry(self.settings, key, messages, sample), "outcome": "answered", "text": ""}

    def figures(self) -> dict[str, Any]:
        """Calls, tokens and cost; `most_` is a bound, the rest an expectation."""
        settings, new, perhaps = self.settings, list(self.new.values()), list(self.perhaps.values())
        sizes = Sizes(entry for entry in self.ledger.finished.values() if entry["judge"] == self.judge)
        asked = sum(sizes.prompt(size(messages)) for messages in new)
        answered = len(new) * sizes.answer(settings.max_tokens)
        # A conversation that goes on carries the judge's own text.
        most_asked = sum(map(most_tokens, [*new, *perhaps])) + len(perhaps) * settings.max_tokens
        most_answered = (len(new) + len(perhaps)) * settings.max_tokens
        return {
            "judge": settings.model,
            "calls": len(self.known) + len(new),
            "in_ledger": len(self.known),
            "new": len(new),
            "perhaps": len(perhaps),
            "tokens_asked": asked,
            "tokens_answered": answered,
            "most_tokens_asked": most_asked,
            "longest": max((sizes.prompt(size(messages)) for messages in new), default=0),
            "most_longest": max(map(most_tokens, new), default=0),
            "most_tokens_answered": most_answered,
            "measured_on": sizes.calls,
            "cost": price(settings, asked, answered),
            "most_cost": price(settings, most_asked, most_answered),
            "spent": self.ledger.spent[self.judge],
            "budget": settings.budget,
        }


def lines(figures: dict[str, Any]) -> list[str]:
    """An estimate as text."""
    f = figures
    perhaps = f", and up to {f['perhaps']:,} again where a verdict is missing" if f["perhaps"] else ""
    basis = (
        f"as in {f['measured_on']:,} calls in the ledger"
        if f["measured_on"]
        else f"assumed: {BYTES_PER_TOKEN:g} bytes a token, {ANSWER_TOKENS:g} tokens an answer"
    )
    spent = f"{f['spent']:.4f}"
    if f["cost"] is None:
        cost, spent = "not known: set judge.input_price and judge.output_price", "not known"
    else:
        cost = f"{f['cost']:.4f} expected, {f['most_cost']:.4f} at most"
    budget = "" if f["budget"] is None else f" of a budget of {f['budget']:g}"
    return [
        f"judge     {f['judge']}",
        f"calls     {f['calls']:,}: {f['in_ledger']:,} in the ledger, {f['new']:,} new{perhaps}",
        f"asked     {f['tokens_asked']:,} tokens expected, {f['most_tokens_asked']:,} at most",
        f"answered  {f['tokens_answered']:,} tokens expected, {f['most_tokens_answered']:,} at most",
        f"longest   {f['longest']:,} tokens expected, {f['most_longest']:,} at most, in one new prompt",
        f"expected  {basis}",
        f"cost      {cost}",
        f"spent     {spent}{budget} by this judge's calls in the ledger",
    ]


def estimate_all(
    settings: Judge, ledger_folder: Path, items: Sequence[T], work: Callable[[Asks, T], Awaitable[Any]]
) -> str:
    """What `work` of each item would ask, as text."""

    async def everything() -> Estimate:
        with Ledger(ledger_folder) as ledger:
            estimate = Estimate(settings, ledger)
            for item in items:
                await work(estimate, item)
        return estimate

    return "\n".join(lines(asyncio.run(everything()).figures()))
