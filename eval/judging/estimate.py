"""A drop-in replacement for the judge client that counts calls and tokens instead of sending them."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from eval.endpoints.costs import ANSWER_TOKENS, BYTES_PER_TOKEN, Sizes, most_tokens, price, size
from eval.judging.client import JudgeSession, Messages, call_parameters, judge_id, new_entry
from eval.ledger.calls import Entry, Ledger, call_key
from salsa.config.judge import Judge

T = TypeVar("T")


class Estimate:
    """A judge session that answers from the ledger, and otherwise counts the call and returns an empty text."""

    def __init__(self, settings: Judge, ledger: Ledger):
        self.settings, self.ledger = settings, ledger
        self.judge, self.parameters = judge_id(settings), call_parameters(settings)
        self.known: set[str] = set()
        self.new: dict[str, Messages] = {}
        self.perhaps: dict[str, Messages] = {}

    async def ask(self, messages: Messages, sample: int = 0) -> Entry:
        """See `JudgeSession`."""
        key = call_key(self.judge, self.parameters, messages, sample)
        if key in self.ledger.finished:
            self.known.add(key)
            return self.ledger.finished[key]
        # A follow-up to a call not made yet is needed only if its reply has no verdict.
        is_follow_up = call_key(self.judge, self.parameters, messages[:-2], sample) in self.new
        (self.perhaps if is_follow_up else self.new)[key] = messages
        return {**new_entry(self.settings, key, messages, sample), "outcome": "answered", "text": ""}

    def figures(self) -> dict[str, Any]:
        """Calls, tokens and cost. Figures with `most_` are upper bounds, the others expectations."""
        settings, new, perhaps = self.settings, list(self.new.values()), list(self.perhaps.values())
        sizes = Sizes(entry for entry in self.ledger.finished.values() if entry["judge"] == self.judge)
        asked = sum(sizes.prompt(size(messages)) for messages in new)
        answered = len(new) * sizes.answer(settings.max_tokens)
        # A follow-up includes the judge's first reply.
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
    """Format an estimate as lines of text."""
    f = figures
    perhaps = f", and up to {f['perhaps']:,} follow-ups if a verdict is missing" if f["perhaps"] else ""
    basis = (
        f"as in {f['measured_on']:,} calls in the ledger"
        if f["measured_on"]
        else f"assumed: {BYTES_PER_TOKEN:g} bytes per token, {ANSWER_TOKENS:g} tokens per reply"
    )
    spent = f"{f['spent']:.4f}"
    if f["cost"] is None:
        cost, spent = "unknown: set judge.input_price and judge.output_price", "unknown"
    else:
        cost = f"{f['cost']:.4f} expected, {f['most_cost']:.4f} at most"
    budget = "" if f["budget"] is None else f" of a budget of {f['budget']:g}"
    return [
        f"judge     {f['judge']}",
        f"calls     {f['calls']:,}: {f['in_ledger']:,} in the ledger, {f['new']:,} new{perhaps}",
        f"prompts   {f['tokens_asked']:,} tokens expected, {f['most_tokens_asked']:,} at most",
        f"replies   {f['tokens_answered']:,} tokens expected, {f['most_tokens_answered']:,} at most",
        f"longest   {f['longest']:,} tokens expected, {f['most_longest']:,} at most, in one new prompt",
        f"basis     {basis}",
        f"cost      {cost}",
        f"spent     {spent}{budget} by this judge's calls in the ledger",
    ]


def estimate_all(
    settings: Judge, ledger_folder: Path, items: Sequence[T], work: Callable[[JudgeSession, T], Awaitable[Any]]
) -> str:
    """Run `work` on each item with an Estimate instead of a judge; returns the estimate as text."""

    async def everything() -> Estimate:
        with Ledger(ledger_folder) as ledger:
            estimate = Estimate(settings, ledger)
            for item in items:
                await work(estimate, item)
        return estimate

    return "\n".join(lines(asyncio.run(everything()).figures()))
