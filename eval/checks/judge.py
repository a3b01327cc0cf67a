"""The judge: its key, its name and its parameters, by a call of one token, which no ledger gets to see."""

import asyncio
import os
from functools import partial
from pathlib import Path

from eval.checks.check import TRY_SECONDS, Check
from eval.endpoints.batches import BatchEndpoint
from eval.endpoints.costs import Sizes
from eval.endpoints.endpoint import Endpoint, Final, Passing
from eval.endpoints.pace import Pace
from eval.judging.client import call_parameters
from salsa.config.config import Config
from salsa.config.judge import Judge
from salsa.runtime.errors import UserError

RETRIES = 1
QUESTION = [{"role": "user", "content": "Say yes."}]
# What endpoints say of a reasoning model that has thought for as long as it may: it is there, and would answer.
CUT_OFF = "output limit was reached"


def checks(config: Config) -> list[Check]:
    judge = config.judge
    found = [Check("judge", judge.model, partial(answers, judge))]
    if judge.batch:
        found.append(Check("judge", "batch API", partial(has_batches, judge)))
    return found


def short(judge: Judge) -> Judge:
    """The same judge, of whom less is wanted."""
    return judge.model_copy(
        update={
            "max_tokens": 1,
            "retries": RETRIES,
            "timeout_seconds": min(TRY_SECONDS, judge.timeout_seconds),
            "patience_seconds": TRY_SECONDS,
        }
    )


def answers(judge: Judge) -> str:
    """One call."""
    if judge.kind == "gold":
        return "the gold judge runs here"
    return asyncio.run(_ask(short(judge)))


async def _ask(judge: Judge) -> str:
    assert judge.base_url is not None
    endpoint = Endpoint(judge, judge.base_url, _no_pace(judge), Sizes(), asyncio.Event())
    try:
        reply = await endpoint.call("doctor", QUESTION, call_parameters(judge))
    except (Passing, Final) as error:
        raise UserError(f"{judge.base_url}: {error}: {error.fix}") from None
    finally:
        await endpoint.close()
    if reply.outcome == "answered":
        if judge.budget is not None and not reply.usage:
            raise UserError("judge.budget: it does not say how many tokens a call took: remove the budget")
        return f"answers at {judge.base_url}" + (f", as {reply.model}" if reply.model else "")
    if CUT_OFF in (reply.error or ""):
        return f"is there at {judge.base_url}, and thinks longer than one token"
    raise UserError(f"{judge.base_url}: it refuses a call ({reply.error}): correct the section judge")


def has_batches(judge: Judge) -> str:
    """A look at the batches of this account."""
    return asyncio.run(_batches(short(judge)))


async def _batches(judge: Judge) -> str:
    assert judge.base_url is not None
    nowhere = Path(os.devnull)
    endpoint = BatchEndpoint(judge, judge.base_url, _no_pace(judge), Sizes(), asyncio.Event(), folder=nowhere)
    try:
        await endpoint.check()
    except (Passing, Final) as error:
        raise UserError(f"{judge.base_url}/batches: {error}: {error.fix}, or leave out judge.batch") from None
    finally:
        await endpoint.close()
    return "is there"


def _no_pace(judge: Judge) -> Pace:
    return Pace(Path(os.devnull), judge.model, {})
