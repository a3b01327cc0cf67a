"""Stage `overlap`: find benchmark questions among the training prompts.

For each training set and benchmark it lists the ids of questions that are
- equal: the first turn equals a user turn of the training set, up to case and punctuation (later turns are often the
  same in many questions);
- alike: at least half of the question's words are in 8-grams that also occur in the user turns of one training row (the
  measure of Tülu 3's decontamination, arXiv 2411.15124, applied row by row).
Nothing is removed; the reader decides.
"""

import argparse
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from eval.benchmarks import Question, load_benchmarks, load_questions
from salsa.data.rows import Unusable, conversation, convert_rows, load_rows, user_turns
from salsa.data.training_sets import load_sets
from salsa.runtime.outputs import output_file
from salsa.runtime.provenance import Run

RUN_OF_WORDS = 8
SHARE_ALIKE = 0.5
WORD = re.compile(r"\w+")
Words = tuple[str, ...]


def words(text: str) -> Words:
    """Lower-case words of a text."""
    return tuple(WORD.findall(text.lower()))


def runs(text: Words) -> Iterable[tuple[int, Words]]:
    """Yield every 8-gram with its position."""
    return ((i, text[i : i + RUN_OF_WORDS]) for i in range(len(text) - RUN_OF_WORDS + 1))


class Questions:
    """An index of a benchmark's questions, to look prompts up in."""

    def __init__(self, questions: Sequence[Question]):
        self.ids = [question.question_id for question in questions]
        self.firsts: dict[Words, set[int]] = defaultdict(set)
        self.places: dict[Words, list[tuple[int, int]]] = defaultdict(list)
        self.lengths: list[int] = []
        for number, question in enumerate(questions):
            self.firsts[words(question.turns[0])].add(number)
            begin = 0
            for turn in map(words, question.turns):
                for i, run in runs(turn):
                    self.places[run].append((number, begin + i))
                begin += len(turn)
            self.lengths.append(begin)
        self.equal: set[int] = set()
        self.alike: set[int] = set()

    def look_up(self, turns: Sequence[Words]) -> None:
        """Record which questions occur in the user turns of one training row."""
        covered: dict[int, set[int]] = defaultdict(set)
        for turn in turns:
            self.equal |= self.firsts.get(turn, set())
            for _, run in runs(turn):
                for number, place in self.places.get(run, ()):
                    covered[number].update(range(place, place + RUN_OF_WORDS))
        self.alike |= {n for n, places in covered.items() if len(places) >= SHARE_ALIKE * self.lengths[n]}

    def result(self) -> dict[str, Any]:
        """Number of questions, and ids of the equal and alike ones."""
        return {
            "questions": len(self.ids),
            "equal": [self.ids[n] for n in sorted(self.equal)],
            "alike": [self.ids[n] for n in sorted(self.alike - self.equal)],
        }


def overlap(rows: Iterable[dict[str, Any]], benchmarks: dict[str, list[Question]]) -> dict[str, Any]:
    """Look up the prompts of `rows` in each benchmark; returns `Questions.result` by benchmark."""
    indices = {name: Questions(questions) for name, questions in benchmarks.items()}
    for dialogue in convert_rows(conversation, rows):
        if isinstance(dialogue, Unusable):
            continue  # not trained on either
        turns = [words(turn) for turn in user_turns(dialogue)]
        for index in indices.values():
            index.look_up(turns)
    return {name: index.result() for name, index in indices.items()}


def run(arguments: argparse.Namespace) -> None:
    sets, benchmarks = load_sets(arguments.sets), load_benchmarks(arguments.benchmarks)
    inputs = {name: Path(wanted.source.path) for name, wanted in sets.items() if wanted.source.path is not None}
    inputs |= {name: Path(b.questions.path) for name, b in benchmarks.items() if b.questions.path is not None}
    settings = {"sets": {name: wanted.model_dump(mode="json") for name, wanted in sets.items()}}
    settings["benchmarks"] = {name: benchmark.model_dump(mode="json") for name, benchmark in benchmarks.items()}
    record = Run("overlap", settings, inputs, {"seed": arguments.seed})
    questions = {name: load_questions(benchmark, arguments.seed) for name, benchmark in benchmarks.items()}
    overlaps = {name: overlap(load_rows(wanted.source, wanted.seed), questions) for name, wanted in sets.items()}
    with output_file(arguments.out, record) as path:
        path.write_text(json.dumps(overlaps, indent=2) + "\n")
