"""The grid's jobs as the rules have them, each with what it costs.

tests/eval/test_plan.py holds them against Snakemake's own dry run.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from eval.grid import policies
from eval.planning.costs import ANALYSIS, FREE, Cost, Costs
from eval.planning.judging import JudgeCosts
from eval.planning.sizes import Sizes
from salsa.config import Config
from salsa.naming import Checkpoint, Perturbed, sft_seed, soup_name, soup_of
from salsa.sections import BenchmarkSettings, DataSource


@dataclass(frozen=True)
class Job:
    """`rule` as in rules/, `needs` the names of jobs before it."""

    rule: str
    name: str
    model: str | None
    needs: tuple[str, ...]
    cost: Cost


@dataclass
class Jobs:
    """`every` maps names to jobs, needed ones before those that need them."""

    sizes: Sizes
    judge: JudgeCosts
    every: dict[str, Job] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.config: Config = self.sizes.local
        for model in self.config.models:
            self._of_model(model, Costs(self.sizes, model))
        self._add("overlap", [], FREE, needs=self._files(self.sizes.training_sources()))
        measured = tuple(self.every)
        card = self._calibration()
        self._add("tables", [], ANALYSIS, needs=measured)
        self._add("figures", [], ANALYSIS, needs=measured)
        self._add("report", [], ANALYSIS, needs=["tables", "figures", *card])
        self._add("all", [], FREE, needs=["tables", "figures", "report"])

    def _add(self, rule: str, parts: list[str], cost: Cost, needs: Iterable[str] = (), model: str | None = None) -> str:
        """The job's name; it is added where it is not there."""
        name = "/".join([rule, *([model] if model else []), *parts])
        self.every.setdefault(name, Job(rule, name, model, tuple(needs), cost))
        return name

    def _file(self, path: str | None, download: BenchmarkSettings | None = None) -> list[str]:
        """The job that makes a file, if one does."""
        if path is None:
            return []
        if path in self.sizes.hub:
            return [self._add("fetch", [path], Costs.fetch(self.sizes, path))]
        if self.config.world is not None and path.startswith(self.sizes.world):
            return [self._add("world", [], FREE)]
        if download is not None and path in download.download:
            return [self._add("download", [path], FREE)]
        return []

    def _files(self, sources: Iterable[DataSource]) -> list[str]:
        return [job for source in sources for job in self._file(source.path)]

    def _asked(self, benchmark: BenchmarkSettings) -> list[str]:
        return self._file(benchmark.questions.path, benchmark)

    def _judged(self, benchmark: BenchmarkSettings) -> list[str]:
        """What a judge is shown beside answers."""
        more = (benchmark.references, benchmark.judge_prompts)
        return [job for path in more for job in self._file(path, benchmark)]

    def _of_model(self, model: str, costs: Costs) -> None:
        config = self.config
        world = [self._add("world", [], FREE)] if config.models[model].world else []
        base = self._add("base", [], costs.base(), world, model)

        def sft(seed: str) -> str:
            sources = (costs.own.sft.train, costs.own.sft.test)
            return self._add("sft", [seed], costs.sft(), [base, *self._files(sources)], model)

        def checkpoint(wanted: Checkpoint) -> str:
            match wanted:
                case str():
                    return sft(sft_seed(wanted))
                case {"soup": dict(weights)}:
                    needs = [sft(sft_seed(name)) for name in weights]
                    return self._add("soup", [soup_name(weights)], costs.soup(len(weights)), needs, model)
                case {"perturbed": Perturbed() as moved}:
                    needs = [sft(sft_seed(moved.of)), checkpoint(soup_of(moved.like))]
                    parts = [sft_seed(moved.of), str(moved.draw), soup_name(moved.like)]
                    return self._add("perturb", parts, costs.soup(2), needs, model)
            raise AssertionError(wanted)

        first = sft(str(config.sft.seeds[0]))
        learned = (costs.own.reward.train, costs.own.reward.test, costs.own.reward.normalisation_prompts)
        reward = self._add("reward", [], costs.reward(), [first, *self._files(learned)], model)
        answers: dict[str, str] = {}
        made: dict[str, str] = {}
        for name, method in config.methods.items():
            start = checkpoint(method.init)
            references = [checkpoint(reference) for reference in method.reference_parts()[1]]
            for policy in policies(config.methods, config.rl_seeds, name):
                if method.algorithm == "none":
                    made[policy] = start
                    continue
                needs = [start, *references, *self._files([costs.trained_on(name)])]
                if method.algorithm == "ppo":
                    needs += [first, reward]
                rule = {"ppo": "align", "dpo": "dpo"}[method.algorithm]
                made[policy] = self._add(rule, [policy], costs.align(name), needs, model)
        asked = [job for benchmark in config.benchmarks.values() for job in self._asked(benchmark)]
        together = (
            self._add("generate", ["all"], costs.generate(len(made)), [*made.values(), *asked], model)
            if (config.generate_together)
            else None
        )
        for policy, trained in made.items():
            answers[policy] = together or self._add("generate", [policy], costs.generate(1), [trained, *asked], model)
        for name in config.methods:
            for policy in policies(config.methods, config.rl_seeds, name):
                self._add("score", [policy], costs.score(name), [answers[policy], first, reward], model)
        line = [checkpoint(point) for point in costs.line()]
        measured = (costs.own.alpha.prompts, costs.own.sft.test)
        self._add("alpha", [], costs.alpha(), [*line, first, reward, *self._files(measured)], model)
        self._add("data", [], costs.data(), [base, *self._files(costs.sources())], model)
        for name, benchmark in config.benchmarks.items():
            needs = [*self._asked(benchmark), *self._judged(benchmark)]
            for comparison in config.comparisons:
                pairs = self.judge.pairs(comparison)
                judged = [answers[policy] for policy in sorted({policy for pair in pairs for policy in pair})]
                self._add("judge", [name, comparison], self.judge.compared(name, len(pairs)), [*judged, *needs], model)
            for policy in answers if benchmark.grade else ():
                self._add("grade", [policy, name], self.judge.graded(name), [answers[policy], *needs], model)

    def _calibration(self) -> list[str]:
        chosen = self.config.calibration
        if chosen is None:
            return []
        published = f"{self.config.paths.data}/{self.config.grid}/published_pair.jsonl"
        archived = []
        for name, file in chosen.files.items():
            made = self.config.world is not None and file.path == published
            needs = [self._add("published", [], FREE, ["world"])] if made else []
            archived.append(self._add("archive", [name], FREE, needs))
        return [self._add("calibrate", [], self.judge.calibrated(), archived)]
