"""What a judge's prompt shows, found by the marks that FastChat's templates and ours put round it."""

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
class Asked:
    """The user's turns, and each assistant's answer to the last of them."""

    turns: list[str]
    answers: list[str]


def read_prompt(text: str) -> Asked | None:
    """Questions and answers of a judge prompt by their marks; None if it is none."""
    conversations = CONVERSATION.findall(text)
    if conversations:
        parts = [[(who, said.strip()) for who, said in TURN.findall(body)] for _, body in conversations]
        answers = [[said for who, said in part if who != "User"] for part in parts]
        if not all(answers):
            return None
        turns = [said for who, said in parts[0] if who == "User"]
        return Asked(turns, [said[-1] for said in answers])
    question, shown = QUESTION.search(text), ANSWER.findall(text)
    return Asked([question[1].strip()], [answer.strip() for _, answer in shown]) if question and shown else None
