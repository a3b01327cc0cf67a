"""Verdict files as FastChat and Arena-Hard write them, with everything that makes them hard to read."""

import random

from salsa.runtime.jsonl import write_jsonl

SINGLE = "[Question]\nWhy {question}?\n\n[The Start of Assistant's Answer]\n{answer}\n[The End of Assistant's Answer]"
PAIR = (
    "[User Question]\nWhy {question}?\n\n"
    "[The Start of Assistant A's Answer]\n{a}\n[The End of Assistant A's Answer]\n\n"
    "[The Start of Assistant B's Answer]\n{b}\n[The End of Assistant B's Answer]"
)
ERROR = "$ERROR$"
LABELS = ("A>>B", "A>B", "A=B", "B>A", "B>>A")


def single(question=81, model="m", text="Rating: [[7]]", score=7.0, turn=1, answer="Because.", **keys) -> dict:
    return {
        **{"question_id": question, "model": model, "judge": ["gpt-4", "single-v1" + "-multi-turn" * (turn - 1)]},
        **{"user_prompt": SINGLE.format(question=question, answer=answer), "judgment": text, "score": score},
        **{"turn": turn, "tstamp": 1687200000.0 + question, **keys},
    }


def rated(question: int, rating: float, **keys) -> dict:
    return single(question, text=f"Fine. Rating: [[{rating:g}]]", score=float(rating), **keys)


def pair(first: str, second: str, question=81, models=("m", "n"), turn=1, lengths=(5, 5), **keys) -> dict:
    """Verdicts of two games as labels of positions; in the second game model_2 is shown first."""
    winners = {"A": "model_1", "B": "model_2", "C": "tie"}
    swapped = {"A": "model_2", "B": "model_1", "C": "tie"}
    one, two = ("x" * lengths[0], "y" * lengths[1])
    return {
        **{"question_id": question, "model_1": models[0], "model_2": models[1], "turn": turn},
        **{"g1_winner": winners.get(first, "error"), "g2_winner": swapped.get(second, "error")},
        **{"g1_user_prompt": PAIR.format(question=question, a=one, b=two)},
        **{"g2_user_prompt": PAIR.format(question=question, a=two, b=one)},
        **{"g1_judgment": f"I say [[{first}]]" if first in winners else first},
        **{"g2_judgment": f"I say [[{second}]]" if second in winners else second},
        **{"judge": ["gpt-4", "pair-v2"], "tstamp": 1687200000.0, **keys},
    }


def arena(question: str, model: str, labels, **keys) -> dict:
    games = [
        {"user_prompt": f"{model} {question} {number}", "judgment": f"My final verdict: [[{label}]]", "score": label}
        for number, label in enumerate(labels)
    ]
    return {"question_id": question, "model": model, "judge": "gpt-4-1106-preview", "games": games, **keys}


def battles(rows) -> list[dict]:
    """The rows that Arena-Hard's show_result.py makes of judgments: one per game, three for a strong verdict."""
    found = []
    for row in rows:
        for game, sides in zip(row["games"], ("ab", "ba"), strict=True):
            label = game["score"]
            winner = "tie" if label == "A=B" else f"model_{sides['AB'.index(label[0])]}"
            same = {"question_id": row["question_id"], "model_a": "gpt-4-0314", "model_b": row["model"]}
            found += [{**same, "winner": winner}] * (3 if ">>" in label else 1)
    return found


def arena_rows(seed: int, models=("one", "two"), questions=30) -> list[dict]:
    rng = random.Random(seed)
    return [arena(f"q{n}", m, [rng.choice(LABELS) for _ in "12"]) for m in models for n in range(questions)]


def write(path, rows):
    write_jsonl(path, rows)
    return path
