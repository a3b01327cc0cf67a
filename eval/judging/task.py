"""What the stages `judge` and `grade` share: arguments, and what is loaded from them."""

import argparse
from dataclasses import dataclass
from typing import Any

from eval.benchmarks import Benchmark, Question, find, load_benchmark, load_questions
from eval.protocols.templates import Templates, load_templates
from salsa.config.judge import Judge
from salsa.config.sections import BenchmarkSettings
from salsa.runtime.settings import load_settings


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
