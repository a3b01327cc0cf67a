"""What the stages `judge` and `grade` share: arguments, and what is loaded from them."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.benchmarks import Benchmark, Question, find, load_benchmark, load_questions
from eval.protocols.templates import Templates, load_templates
from salsa.config.judge import Judge
from salsa.config.sections import BenchmarkSettings
from salsa.runtime.settings import load_settings


def add_task_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of both stages. Either --out or --estimate is required."""
    parser.add_argument("--generations", type=Path, required=True, help="folder with POLICY/BENCHMARK.jsonl")
    parser.add_argument(
        "--benchmark", required=True, metavar="NAME=SETTINGS", help="NAME=JSON or NAME=FILE.yaml#benchmarks.NAME"
    )
    parser.add_argument("--settings", required=True, help="the config's judge section: JSON or FILE.yaml#judge")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--ledger", type=Path, required=True, help="folder that stores calls; may be shared")
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--out", type=Path)
    target.add_argument(
        "--estimate", action="store_true", help="print calls, tokens and cost without calling the judge"
    )


@dataclass(frozen=True)
class JudgingTask:
    """A judge, and a benchmark with its questions and prompt templates."""

    judge: Judge
    name: str
    settings: BenchmarkSettings
    benchmark: Benchmark
    questions: list[Question]
    templates: Templates

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> "JudgingTask":
        """Load what the arguments name. A UserError says what is wrong with it."""
        judge = load_settings(arguments.settings, Judge)
        name, settings = load_benchmark(arguments.benchmark)
        questions = load_questions(settings, arguments.seed)
        benchmark = find(settings.kind)
        templates = load_templates(settings.judge_prompts, benchmark.templates)
        return cls(judge, name, settings, benchmark, questions, templates)

    def recorded(self) -> dict[str, Any]:
        """The settings that verdicts depend on, for run.json."""
        return {
            "judge": self.judge.asked(),
            "benchmark": {"name": self.name, **self.settings.model_dump()},
            "templates": self.templates.sha256,
        }
