"""Recover the question and the answers from a rendered judge prompt (FastChat's templates or ours)."""

import re
from dataclasses import dataclass

CONVERSATION = re.compile(
    r"<\|The Start of Assistant (\w)'s Conversation with User\|>\n(.*?)\n"
    r"<\|The End of Assistant \1's Conversation with User\|>",
    re.DOTALL,
)
TURN = re.compile(r"### (User|Assistant \w):\n(.*?)(?=\n+### (?:User|Assistant \w):\n|\Z)", re.DOTALL)
QUESTION = re.compile(
    r"(?:\[User Question\]|\[Question\]|<\|User Prompt\|>)\n(.*?)\n+(?=\[The Start of |<\|The Start of )", re.DOTALL
)
ANSWER = re.compile(
    r"(?:\[|<\|)The Start of Assistant(?: (\w))?'s Answer(?:\]|\|>)\n(.*?)\n"
    r"(?:\[|<\|)The End of Assistant(?: \1)?'s Answer(?:\]|\|>)",
    re.DOTALL,
)


@dataclass(frozen=True)
class JudgePrompt:
    """The user turns, and each assistant's answer to the last of them."""

    turns: list[str]
    answers: list[str]


def parse_judge_prompt(text: str) -> JudgePrompt | None:
    """Parse a rendered judge prompt; None if the text is not one."""
    conversations = CONVERSATION.findall(text)
    if conversations:
        parts = [[(who, said.strip()) for who, said in TURN.findall(body)] for _, body in conversations]
        answers = [[said for who, said in part if who != "User"] for part in parts]
        if not all(answers):
            return None
        turns = [said for who, said in parts[0] if who == "User"]
        return JudgePrompt(turns, [said[-1] for said in answers])
    question, answered = QUESTION.search(text), ANSWER.findall(text)
    if not (question and answered):
        return None
    return JudgePrompt([question[1].strip()], [answer.strip() for _, answer in answered])
