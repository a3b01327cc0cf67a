"""Small judging cases for the tests here: a mini question set, two policies, and a test endpoint."""

import json
from collections.abc import Callable

from eval.judging.gold_judge import completion
from salsa.config.judge import Judge
from salsa.world.tasks import solve
from tests.eval.judge_server import Answer, JudgeServer

GOLD = {"kind": "gold", "model": "gold-judge"}
KEY = "sk-very-secret"


def answers(questions, write: Callable[[list[str]], str]) -> list[dict]:
    rows = []
    for question in questions:
        turns = question.get("turns") or [question["prompt"]]
        turns = [turn if isinstance(turn, str) else turn["content"] for turn in turns]
        said = [{"user": user, "assistant": write(turns[: n + 1])} for n, user in enumerate(turns)]
        name = str(question.get("question_id", question.get("uid")))
        rows.append({"question_id": name, "category": "x", "turns": said, "error": None})
    return rows


def right(turns: list[str]) -> str:
    return f"Sure! {', '.join(solve(turns) or ('?',))}. Happy to help."


def wrong(turns: list[str]) -> str:
    return "Sure! seven. Happy to help."


class Flaky(JudgeServer):
    """A gold judge over HTTP; `spoil(number, request)` may replace its reply by (status, body) or an Answer."""

    def __init__(self, spoil):
        self.spoil = spoil
        super().__init__(self.judge)

    def judge(self, number: int, body: bytes) -> Answer:
        request = json.loads(body)
        found = self.spoil(number, request) or completion(request, Judge(**GOLD))
        return found if isinstance(found, Answer) else Answer(*found, headers={"retry-after-ms": "1"})

    def settings(self, **keys) -> dict:
        return {"kind": "endpoint", "model": "m", "base_url": self.url, "api_key_env": "TEST_JUDGE_KEY", **keys}
