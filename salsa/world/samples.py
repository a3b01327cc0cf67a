"""Sample from the mini world: prompts, imperfect answers, demonstrations, preferences, benchmark questions.

Prompts are split by a hash of their text, so no stage trains on a held-out prompt.
"""

import hashlib
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from salsa.world.gold import compose, gold_reward
from salsa.world.tasks import FAMILIES, FOLLOW_UPS, family_of, solve

REMARKS = (
    "I think this is right.",
    "Let me know if you want more.",
    "This is a good question.",
    "There is more to say about it.",
    "I hope that this is clear.",
)
TRAINING_SIZES = (1, 2, 3)
HARD_SIZES = (4, 5)
HELD_OUT_SHARE = 5
FOLLOW_UP_SHARE = 0.3
CUES = ("Answer:", "Reply:", "So:", "They said:", "Then:")
REFERENCE_FAMILIES = ("math", "reasoning", "coding")


@dataclass(frozen=True)
class Quality:
    """An imperfect author: probabilities of a wrong item, of opening and closing, of a remark, of breaking off."""

    wrong_item: float
    opening: float
    closing: float
    remark: float
    break_off: float


WRITER = Quality(wrong_item=0.0, opening=0.0, closing=0.0, remark=0.0, break_off=0.0)
DEMONSTRATOR = Quality(wrong_item=0.12, opening=0.5, closing=0.4, remark=0.35, break_off=0.0)


def held_out(prompt: str) -> bool:
    """Whether a first turn belongs to the held-out fifth of all prompts."""
    return hashlib.sha256(prompt.encode()).digest()[0] % HELD_OUT_SHARE == 0


def draw_prompt(rng: random.Random, family: str, sizes: tuple[int, ...], test: bool) -> str:
    """Draw a prompt of the family; held-out if `test`."""
    while True:
        prompt = FAMILIES[family].write(rng, rng.choice(sizes))
        if held_out(prompt) == test:
            return prompt


def answer(rng: random.Random, user_turns: list[str], quality: Quality) -> str:
    """Draw an answer to the last turn by an author of this quality."""
    distractors = FAMILIES[str(family_of(user_turns[0]))].distractors
    items = [rng.choice(distractors) if rng.random() < quality.wrong_item else item for item in solve(user_turns) or ()]
    if rng.random() < quality.break_off:
        items = items[: rng.randrange(len(items))]
    remarks: list[str] = []
    while rng.random() < quality.remark and len(remarks) < 2:
        remarks.append(rng.choice(REMARKS))
    return compose(items, rng.random() < quality.opening, rng.random() < quality.closing, remarks)


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def draw_dialogue(rng: random.Random, two_turn_share: float, test: bool) -> list[dict[str, str]]:
    """Draw a dialogue that ends with a user turn; in a two-turn dialogue, a demonstrator gave the first answer."""
    messages = [_message("user", draw_prompt(rng, rng.choice(list(FAMILIES)), TRAINING_SIZES, test))]
    if rng.random() < two_turn_share:
        messages.append(_message("assistant", answer(rng, [messages[0]["content"]], DEMONSTRATOR)))
        messages.append(_message("user", rng.choice(list(FOLLOW_UPS))))
    return messages


def _turns(messages: list[dict[str, str]]) -> list[str]:
    return [message["content"] for message in messages if message["role"] == "user"]


def pretraining_documents(rng: random.Random, count: int) -> Iterator[dict[str, Any]]:
    """Plain-text documents for pretraining: a task, a cue and the correct answer, sometimes with a follow-up.

    Rows are {turns: [{prompt, answer}]}. Without a chat template, the base model does not learn to be an assistant.
    """
    for _ in range(count):
        users = [draw_prompt(rng, rng.choice(list(FAMILIES)), TRAINING_SIZES, test=False)]
        if rng.random() < FOLLOW_UP_SHARE:
            users.append(rng.choice(list(FOLLOW_UPS)))
        cue = rng.choice(CUES)
        turns = [
            {"prompt": f"{user} {cue}", "answer": answer(rng, users[: n + 1], WRITER)} for n, user in enumerate(users)
        ]
        yield {"turns": turns}


def demonstrations(rng: random.Random, count: int, two_turn_share: float, test: bool) -> Iterator[dict[str, Any]]:
    """Demonstrations in UltraChat's schema, with deliberate errors, missing manners and superfluous remarks."""
    for index in range(count):
        messages = draw_dialogue(rng, two_turn_share, test)
        messages.append(_message("assistant", answer(rng, _turns(messages), DEMONSTRATOR)))
        yield {"prompt": messages[0]["content"], "prompt_id": f"sft-{index}", "messages": messages}


def _any_quality(rng: random.Random) -> Quality:
    """Draw an author for preference data, better or worse than the demonstrator."""
    return Quality(rng.uniform(0, 0.6), rng.random(), rng.random(), rng.uniform(0, 0.6), rng.uniform(0, 0.2))


def preferences(
    rng: random.Random, count: int, two_turn_share: float, temperature: float, test: bool, name: str
) -> Iterator[dict[str, Any]]:
    """Preference pairs in UltraFeedback's schema, with their gold rewards.

    Scores are gold / temperature plus Gumbel noise, so answer 1 is preferred with the Bradley-Terry probability
    sigmoid((gold_1 - gold_2) / temperature).
    """
    for index in range(count):
        messages = draw_dialogue(rng, two_turn_share, test)
        turns = _turns(messages)
        answers = [answer(rng, turns, _any_quality(rng)) for _ in range(2)]
        golds = [gold_reward(turns, text) for text in answers]
        scores = [gold / temperature - math.log(-math.log(rng.uniform(1e-12, 1 - 1e-12))) for gold in golds]
        best = int(scores[1] > scores[0])
        chosen, rejected = ([*messages, _message("assistant", answers[side])] for side in (best, 1 - best))
        yield {
            "prompt": messages[0]["content"],
            "prompt_id": f"{name}-{index}",
            "chosen": chosen,
            "rejected": rejected,
            "messages": chosen,
            "score_chosen": round(scores[best], 4),
            "score_rejected": round(scores[1 - best], 4),
            "gold_chosen": round(golds[best], 4),
            "gold_rejected": round(golds[1 - best], 4),
        }


def rl_prompts(rng: random.Random, count: int, two_turn_share: float) -> Iterator[dict[str, Any]]:
    """Prompts in UltraFeedback's _gen schema: messages end with a user turn."""
    for index in range(count):
        messages = draw_dialogue(rng, two_turn_share, test=False)
        yield {"prompt": messages[0]["content"], "prompt_id": f"rl-{index}", "messages": messages}


def mt_bench_questions(rng: random.Random, per_category: int) -> Iterator[dict[str, Any]]:
    """Questions in MT-Bench's schema: two turns, with reference answers in math, reasoning and coding."""
    number = 81
    for family in FAMILIES:
        for _ in range(per_category):
            turns = [draw_prompt(rng, family, (2, 3), test=True), rng.choice(list(FOLLOW_UPS))]
            row = {"question_id": number, "category": family, "turns": turns}
            if family in REFERENCE_FAMILIES:
                row["reference"] = [compose(solve(turns[: n + 1]) or ()) for n in range(2)]
            yield row
            number += 1


def arena_hard_questions(rng: random.Random, count: int) -> Iterator[dict[str, Any]]:
    """Questions in Arena-Hard's schema: tasks with more items than in training."""
    for index in range(count):
        family = list(FAMILIES)[index % len(FAMILIES)]
        prompt = draw_prompt(rng, family, HARD_SIZES, test=True)
        uid = hashlib.sha256(f"{index} {prompt}".encode()).hexdigest()[:32]
        yield {"uid": uid, "category": "arena-hard-mini", "cluster": family, "prompt": prompt}
