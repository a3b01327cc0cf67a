"""Benchmarks: what is asked, how warm it is answered, what a judge is shown, and what its verdicts earn.

`kind: mt_bench` in the config is the BENCHMARK of eval/benchmarks/mt_bench.py, `kind: my/own.py` that of a file of
one's own (docs/howto-benchmark.md).
"""

from eval.benchmarks.base import Benchmark, Question, Row, Texts
from eval.benchmarks.loading import find, load_questions, of_protocol, parse_benchmarks, pinned_files, temperature
from eval.prompts import Template

__all__ = [
    "Benchmark",
    "Question",
    "Row",
    "Template",
    "Texts",
    "find",
    "load_questions",
    "of_protocol",
    "parse_benchmarks",
    "pinned_files",
    "temperature",
]
