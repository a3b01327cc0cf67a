"""The grid's jobs as the rules have them, each with what it costs.

tests/eval/planning/test_plan.py holds them against Snakemake's own dry run.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from eval.planning.judge_calls import JudgeCosts
from eval.planning.sizes import Sizes
from eval.planning.stage_costs import ANALYSIS, FREE, Costs
from eval.planning.work import Cost
from eval.tables.grid import policies
from salsa.config.config import Config
from salsa.config.naming import Checkpoint, Perturbed, sft_seed, soup_name, soup_of
from salsa.config.sections import BenchmarkSettings, DataSource


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
            ModelJobs(self, model).add()
        self.add("overlap", [], FREE, needs=self.files(self.sizes.training_sources()))
        measured = tuple(self.every)
        card = self._calibration()
        self.add("tables", [], ANALYSIS, needs=measured)
        self.add("figures", [], ANALYSIS, needs=measured)
        self.add("report", [], ANALYSIS, needs=["tables", "figures", *card])
        self.add("all", [], FREE, needs=["tables", "figures", "report"])

    def add(self, rule: str, parts: list[str], cost: Cost, needs: Iterable[str] = (), model: str | None = None) -> str:
        """The job's name; it is added where it is not there."""
        name = "/".join([rule, *([model] if model else []), *parts])
        self.every.setdefault(name, Job(rule, name, model, tuple(needs), cost))
        return name

    def file(self, path: str | None, download: BenchmarkSettings | None = None) -> list[str]:
        """The job that makes a file, if one does."""
        if path is None:
            return []
        if path in self.sizes.hub:
            return [self.add("fetch", [path], Costs.fetch(self.sizes, path))]
        if self.config.world is not None and path.startswith(self.sizes.world):
            return [self.add("world", [], FREE)]
        if download is not None and path in download.download:
            return [self.add("download", [path], FREE)]
        return []

    def files(self, sources: Iterable[DataSource]) -> list[str]:
        return [job for source in sources for job in self.file(source.path)]

    def asked(self, benchmark: BenchmarkSettings) -> list[str]:
        return self.file(benchmark.questions.path, benchmark)

    def judged(self, benchmark: BenchmarkSettings) -> list[str]:
        """What a judge is shown beside answers."""
        more = (benchmark.references, benchmark.judge_prompts)
        return [job for path in more for job in self.file(path, benchmark)]

    def _calibration(self) -> list[str]:
        chosen = self.config.calibration
        if chosen is None:
            return []
        published = f"{self.config.paths.data}/{self.config.grid}/published_pair.jsonl"
        archived = []
        for name, file in chosen.files.items():
            made = self.config.world is not None and file.path == published
            needs = [self.add("published", [], FREE, ["world"])] if made else []
            archived.append(self.add("archive", [name], FREE, needs))
        return [self.add("calibrate", [], self.judge.calibrated(), archived)]


class ModelJobs:
    """A model's jobs, which `add` adds to all."""

    def __init__(self, jobs: Jobs, model: str):
        self.jobs, self.model, self.config = jobs, model, jobs.config
        self.costs = Costs(jobs.sizes, model)
        world = [jobs.add("world", [], FREE)] if self.config.models[model].world else []
        self.base = self._add("base", [], self.costs.base(), world)

    def _add(self, rule: str, parts: list[str], cost: Cost, needs: Iterable[str]) -> str:
        return self.jobs.add(rule, parts, cost, needs, self.model)

    def _sft(self, name: str) -> str:
        settings, seed = self.costs.own.sft, sft_seed(name)
        needs = [self.base, *self.jobs.files((settings.train, settings.test))]
        return self._add("sft", [seed], self.costs.sft(), needs)

    def _checkpoint(self, wanted: Checkpoint) -> str:
        """The job that makes an SFT model, a soup or a perturbed model, with those before it."""
        match wanted:
            case str():
                return self._sft(wanted)
            case {"soup": dict(weights)}:
                needs = [self._sft(name) for name in weights]
                return self._add("soup", [soup_name(weights)], self.costs.soup(len(weights)), needs)
            case {"perturbed": Perturbed() as moved}:
                needs = [self._sft(moved.of), self._checkpoint(soup_of(moved.like))]
                parts = [sft_seed(moved.of), str(moved.draw), soup_name(moved.like)]
                return self._add("perturb", parts, self.costs.soup(2), needs)
        raise AssertionError(wanted)

    def _policies(self, first: str, reward: str) -> dict[str, str]:
        """The job that makes each policy."""
        made = {}
        for name, method in self.config.methods.items():
            start = self._checkpoint(method.init)
            references = [self._checkpoint(reference) for reference in method.reference_parts()[1]]
            for policy in policies(self.config.methods, self.config.rl_seeds, name):
                if method.algorithm == "none":
                    made[policy] = start
                    continue
                needs = [start, *references, *self.jobs.files([self.costs.trained_on(name)])]
                if method.algorithm == "ppo":
                    needs += [first, reward]
                rule = {"ppo": "align", "dpo": "dpo"}[method.algorithm]
                made[policy] = self._add(rule, [policy], self.costs.align(name), needs)
        return made

    def _answers(self, made: dict[str, str]) -> dict[str, str]:
        """The job that answers for each policy."""
        asked = [job for benchmark in self.config.benchmarks.values() for job in self.jobs.asked(benchmark)]
        if self.config.generate_together:
            job = self._add("generate", ["all"], self.costs.generate(len(made)), [*made.values(), *asked])
            return dict.fromkeys(made, job)
        one = self.costs.generate(1)
        return {policy: self._add("generate", [policy], one, [trained, *asked]) for policy, trained in made.items()}

    def _judgments(self, answers: dict[str, str]) -> None:
        judge = self.jobs.judge
        for name, benchmark in self.config.benchmarks.items():
            needs = [*self.jobs.asked(benchmark), *self.jobs.judged(benchmark)]
            for comparison in self.config.comparisons:
                pairs = judge.pairs(comparison)
                compared = [answers[policy] for policy in sorted({policy for pair in pairs for policy in pair})]
                self._add("judge", [name, comparison], judge.compared(name, len(pairs)), [*compared, *needs])
            for policy in answers if benchmark.grade else ():
                self._add("grade", [policy, name], judge.graded(name), [answers[policy], *needs])

    def add(self) -> None:
        costs, jobs = self.costs, self.jobs
        self._add("data", [], costs.data(), [self.base, *jobs.files(jobs.sizes.sources(self.model))])
        first, settings = self._sft(f"sft-{self.config.sft.seeds[0]}"), costs.own.reward
        learned = jobs.files((settings.train, settings.test, settings.normalisation_prompts))
        reward = self._add("reward", [], costs.reward(), [first, *learned])
        answers = self._answers(self._policies(first, reward))
        for name in self.config.methods:
            for policy in policies(self.config.methods, self.config.rl_seeds, name):
                self._add("score", [policy], costs.score(name), [answers[policy], first, reward])
        line = [self._checkpoint(point) for point in costs.line()]
        measured = jobs.files((costs.own.alpha.prompts, costs.own.sft.test))
        self._add("alpha", [], costs.alpha(), [*line, first, reward, *measured])
        self._judgments(answers)
