"""Checks of the judge: its key, model and parameters, by one call of one token that no ledger records."""

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
from eval.planning.judge_calls import judge_prices
from salsa.config.config import Config
from salsa.config.judge import Judge
from salsa.runtime.errors import UserError

RETRIES = 1
QUESTION = [{"role": "user", "content": "Say yes."}]
# Endpoints answer so if a reasoning model reaches max_tokens before its answer: the model works.
CUT_OFF = "output limit was reached"


def checks(config: Config) -> list[Check]:
    """A call to the judge, and a call to its batch API if the config uses that."""
    judge = config.judge
    checks = [Check("judge", judge.model, partial(check_answer, judge))]
    if judge.batch:
        checks.append(Check("judge", "batch API", partial(check_batches, judge)))
    return checks


def short_call(judge: Judge) -> Judge:
    """The judge's settings with one token, one retry and a short timeout."""
    return judge.model_copy(
        update={
            "max_tokens": 1,
            "retries": RETRIES,
            "timeout_seconds": min(TRY_SECONDS, judge.timeout_seconds),
            "patience_seconds": TRY_SECONDS,
        }
    )


def check_answer(judge: Judge) -> str:
    """Check that the judge answers one call."""
    if judge.kind == "gold":
        return "the gold judge runs on this machine"
    return asyncio.run(_ask(short_call(judge)))


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
            raise UserError("judge.budget: the endpoint does not report the tokens of a call: remove the budget")
        return f"answers at {judge.base_url}" + (f", as {reply.model}" if reply.model else "") + last_day(judge.model)
    if CUT_OFF in (reply.error or ""):
        return f"answers at {judge.base_url}; its reasoning takes more than one token"
    raise UserError(f"{judge.base_url}: the endpoint refuses a call ({reply.error}): correct the section judge")


def last_day(model: str) -> str:
    """Until when the judge's maker serves it, if that is known."""
    price = judge_prices().judges.get(model)
    return f"; its maker serves it until {price.ends}" if price is not None and price.ends is not None else ""


def check_batches(judge: Judge) -> str:
    """Check that the account can list its batches."""
    return asyncio.run(_list_batches(short_call(judge)))


async def _list_batches(judge: Judge) -> str:
    assert judge.base_url is not None
    unused = Path(os.devnull)
    endpoint = BatchEndpoint(judge, judge.base_url, _no_pace(judge), Sizes(), asyncio.Event(), folder=unused)
    try:
        await endpoint.check()
    except (Passing, Final) as error:
        raise UserError(f"{judge.base_url}/batches: {error}: {error.fix}, or remove judge.batch") from None
    finally:
        await endpoint.close()
    return "answers"


def _no_pace(judge: Judge) -> Pace:
    return Pace(Path(os.devnull), judge.model, {})
