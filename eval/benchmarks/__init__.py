"""Benchmarks: questions, how policies answer them, what a judge is shown, and how verdicts become points.

In: the config's `benchmarks` section, and files of questions.
Out: `Question`s, and a `Benchmark` object that knows its protocol.
Open first: base.py (what a benchmark defines), then mt_bench.py (one of them).

`kind: mt_bench` in the config names the BENCHMARK of mt_bench.py here, `kind: my/own.py` that of your own file
(docs/howto-benchmark.md).
"""

from eval.benchmarks.base import Benchmark, Question, Row, Texts
from eval.benchmarks.loading import (
    find,
    load_benchmark,
    load_benchmarks,
    load_questions,
    of_protocol,
    pinned_files,
    temperature,
)
from eval.protocols.templates import Template

__all__ = [
    "Benchmark",
    "Question",
    "Row",
    "Template",
    "Texts",
    "find",
    "load_benchmark",
    "load_benchmarks",
    "load_questions",
    "of_protocol",
    "pinned_files",
    "temperature",
]
