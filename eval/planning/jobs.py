"""The grid's jobs, as in rules/, each with its cost.

tests/eval/planning/test_plan.py compares them with Snakemake's dry run.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from eval.costs.sizes import Sizes
from eval.costs.stage_costs import ANALYSIS, Costs
from eval.costs.training_costs import FREE
from eval.costs.work import Cost
from eval.grid.layout import policies
from eval.planning.judge_calls import JudgeCosts
from salsa.config.algorithms import RL_ALGORITHMS
from salsa.config.config import FIRST_ROLE, Config, all_replicates, frontier_runs
from salsa.config.layout import reward_owner
from salsa.config.naming import BASE, Checkpoint, Perturbed, greedy_name, sft_seed, soup_name, soup_of
from salsa.config.replicates import HELD_OUT, Policy, Replicate, bind, suffix
from salsa.config.sections import BenchmarkSettings, DataSource


@dataclass(frozen=True)
class Job:
    """A job of the workflow: its rule, and the names of the jobs that it needs."""

    rule: str
    name: str
    model: str | None
    needs: tuple[str, ...]
    cost: Cost


@dataclass
class Jobs:
    """All jobs of a grid. In `by_name` each job comes after the jobs that it needs."""

    sizes: Sizes
    judge: JudgeCosts
    by_name: dict[str, Job] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.config: Config = self.sizes.local
        for model in self.config.models:
            ModelJobs(self, model).add()
        self.add("overlap", [], FREE, needs=self.files(self.sizes.training_sources()))
        measured = tuple(self.by_name)
        calibration = self._calibration()
        self.add("tables", [], ANALYSIS, needs=measured)
        self.add("figures", [], ANALYSIS, needs=measured)
        self.add("report", [], ANALYSIS, needs=["tables", "figures", *calibration])
        self.add("all", [], FREE, needs=["tables", "figures", "report"])

    def add(self, rule: str, parts: list[str], cost: Cost, needs: Iterable[str] = (), model: str | None = None) -> str:
        """Add the job unless it exists, and return its name."""
        name = "/".join([rule, *([model] if model else []), *parts])
        self.by_name.setdefault(name, Job(rule, name, model, tuple(needs), cost))
        return name

    def file(self, path: str | None, download: BenchmarkSettings | None = None) -> list[str]:
        """The name of the job that makes a file; empty for a user's own file."""
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

    def questions(self, benchmark: BenchmarkSettings) -> list[str]:
        """The job that makes a benchmark's questions."""
        return self.file(benchmark.questions.path, benchmark)

    def judge_files(self, benchmark: BenchmarkSettings) -> list[str]:
        """The jobs that make a benchmark's reference answers and judge prompts."""
        paths = (benchmark.references, benchmark.judge_prompts)
        return [job for path in paths for job in self.file(path, benchmark)]

    def _calibration(self) -> list[str]:
        calibration = self.config.calibration
        if calibration is None:
            return []
        published = f"{self.config.paths.data}/{self.config.grid}/published_pair.jsonl"
        archives = []
        for name, file in calibration.files.items():
            generated = self.config.world is not None and file.path == published
            needs = [self.add("published", [], FREE, ["world"])] if generated else []
            archives.append(self.add("archive", [name], FREE, needs))
        return [self.add("calibrate", [], self.judge.calibration(), archives)]


class ModelJobs:
    """One model's jobs; `add` adds them to the grid's."""

    def __init__(self, jobs: Jobs, model: str):
        self.jobs, self.model, self.config = jobs, model, jobs.config
        self.costs = Costs(jobs.sizes, model)
        self.replicates = all_replicates(self.config)
        world = [jobs.add("world", [], FREE)] if self.config.models[model].world else []
        self.base = self._add("base", [], self.costs.base(), world)

    def _add(self, rule: str, parts: list[str], cost: Cost, needs: Iterable[str]) -> str:
        return self.jobs.add(rule, parts, cost, needs, self.model)

    def _one(self, name: str) -> str:
        """The job that makes an SFT model or the base."""
        if name == BASE:
            return self.base
        settings, seed = self.costs.settings.sft, sft_seed(name)
        needs = [self.base, *self.jobs.files((settings.train, settings.test))]
        return self._add("sft", [seed], self.costs.sft(), needs)

    def _in_replicate(self, replicate: str, checkpoint: Checkpoint) -> str:
        """The job that makes a checkpoint named by roles."""
        return self._checkpoint(bind(checkpoint, self.replicates[replicate].sft))

    def _checkpoint(self, checkpoint: Checkpoint) -> str:
        """Add the job that makes an SFT model, an average or a perturbed model, with the jobs that it needs."""
        match checkpoint:
            case str():
                return self._one(checkpoint)
            case {"soup": dict(weights)}:
                needs = [self._one(name) for name in weights]
                return self._add("soup", [soup_name(weights)], self.costs.soup(len(weights)), needs)
            case {"slerp": dict(weights)}:
                needs = [self._one(name) for name in (*weights, BASE)]
                return self._add("slerp", [soup_name(weights)], self._on_arc(len(needs)), needs)
            case {"greedy": list(models)}:
                prompts = self.jobs.files([self.costs.settings.alpha.prompts])
                needs = [*(self._one(name) for name in models), self._reward(HELD_OUT), *prompts]
                return self._add("greedy", [greedy_name(models)], self.costs.greedy(len(models)), needs)
            case {"perturbed": Perturbed() as perturbed}:
                needs = [self._one(perturbed.of), self._checkpoint(soup_of(perturbed.like))]
                parts = [sft_seed(perturbed.of), str(perturbed.draw), soup_name(perturbed.like)]
                return self._add("perturb", parts, self.costs.soup(2), needs)
        raise AssertionError(checkpoint)

    def _policy(self, policy: Policy) -> str:
        """The job that trains a policy; for an untrained method the one that makes its initial model."""
        method = self.config.methods[policy.method]
        if method.algorithm == "none":
            return self._in_replicate(policy.replicate, method.init)
        if method.warp is not None:
            needs = self._round(policy, method.warp.rounds)
            return self._add("warp", [policy.name], self._on_arc(len(needs)), needs)
        if method.warp_run is not None:
            start = self._warp_start(replace(policy, method=method.warp_run.of), method.warp_run.round)
            references = [start]
        else:
            start = self._in_replicate(policy.replicate, method.init)
            references = [self._in_replicate(policy.replicate, part) for part in method.reference_parts()[1]]
        needs = [start, *references, *self.jobs.files([self.costs.trained_on(policy.method)])]
        if method.algorithm in RL_ALGORITHMS:
            needs += [self._in_replicate(policy.replicate, FIRST_ROLE), self._trained_against(policy)]
        rule = "align" if method.algorithm in RL_ALGORITHMS else method.algorithm
        return self._add(rule, [policy.name], self.costs.align(policy.method), needs)

    def _warp_start(self, policy: Policy, number: int) -> str:
        """The job that makes the start of a round of a policy's WARP."""
        if number == 1:
            return self._in_replicate(policy.replicate, self.config.methods[policy.method].init)
        needs = self._round(policy, number - 1)
        return self._add("warp_start", [policy.name, str(number)], self._on_arc(len(needs)), needs)

    def _round(self, policy: Policy, number: int) -> list[str]:
        """The jobs that train the runs of a round, and the one that makes their start."""
        runs = [run for run in self.config.methods[policy.method].warp_runs(policy.method) if run.round == number]
        trained = [self._policy(replace(policy, method=run.name)) for run in runs]
        return [*trained, self._warp_start(policy, number)]

    def _on_arc(self, count: int) -> Cost:
        """A spherical average. All files are read twice: for the angles, and for the sum."""
        return replace(self.costs.soup(2 * count), disk=self.costs.soup(1).disk)

    def _answers(self, replicate: str, trained: dict[str, str]) -> dict[str, str]:
        """The job that generates each policy's answers; `trained` has the jobs that train the replicate's policies."""
        questions = [job for benchmark in self.config.benchmarks.values() for job in self.jobs.questions(benchmark)]
        if self.config.policies_together:
            parts, needs = [f"all{suffix(replicate)}"], [*trained.values(), *questions]
            return dict.fromkeys(trained, self._add("generate", parts, self.costs.generate(len(trained)), needs))
        cost = self.costs.generate(1)
        return {policy: self._add("generate", [policy], cost, [job, *questions]) for policy, job in trained.items()}

    def _judgments(self, replicate: str, answers: dict[str, str]) -> None:
        judge = self.jobs.judge
        for name, benchmark in self.config.benchmarks.items():
            needs = [*self.jobs.questions(benchmark), *self.jobs.judge_files(benchmark)]
            for comparison in self.config.comparisons:
                pairs = judge.pairs(comparison, replicate)
                compared = [answers[policy] for policy in sorted({policy for pair in pairs for policy in pair})]
                parts = [name, f"{comparison}{suffix(replicate)}"]
                self._add("judge", parts, judge.comparison(name, len(pairs)), [*compared, *needs])
            for policy in answers if benchmark.grade else ():
                self._add("grade", [policy, name], judge.grading(name), [answers[policy], *needs])

    def _reward_start(self, owner: str) -> str:
        """The job that makes the SFT model that an owner's reward models start from."""
        return self._in_replicate(owner if owner in self.replicates else next(iter(self.replicates)), FIRST_ROLE)

    def _reward(self, owner: str, version: str = "") -> str:
        """The job that trains an owner's reward model, or another version of it."""
        settings = self.costs.settings.reward
        data = self.jobs.files((settings.train, settings.test, settings.normalisation_prompts))
        parts = [part for part in (owner, version) if part]
        return self._add("reward", parts, self.costs.reward(), [self._reward_start(owner), *data])

    def _trained_against(self, policy: Policy) -> str:
        """The job that makes the reward of a policy's training."""
        owner, combined = reward_owner(self.config, policy.replicate), self.config.methods[policy.method].reward
        if combined is None:
            return self._reward(owner)
        settings = self.costs.settings.reward
        models = [self._reward(owner, version) for version in combined.versions]
        data = self.jobs.files((settings.test, settings.normalisation_prompts))
        parts = [part for part in (owner, combined.name) if part]
        needs = [*models, self._reward_start(owner), *data]
        return self._add("combine", parts, self.costs.combine(combined), needs)

    def _replicate(self, name: str, replicate: Replicate, rewards: list[str], further: list[Checkpoint]) -> None:
        """Add a replicate's jobs. `rewards`: the jobs of its reward model and, if there is one, of the held-out one.

        `further` are the checkpoints that its stage `alpha` measures beside the line.
        """
        reward = rewards[0]
        costs, jobs = self.costs, self.jobs
        first = self._in_replicate(name, FIRST_ROLE)
        found = policies(self.config.methods, {name: replicate})
        trained = {policy.name: self._policy(policy) for policy in found}
        answering = [policy for policy in found if self.config.methods[policy.method].answers]
        answers = self._answers(name, {policy.name: trained[policy.name] for policy in answering})
        together = self.config.policies_together
        groups = [answering] if together else [[policy] for policy in answering]
        for scored in filter(None, groups):
            parts = [f"all{suffix(name)}"] if together else [scored[0].name]
            cost = costs.score([policy.method for policy in scored])
            self._add("score", parts, cost, [*(answers[policy.name] for policy in scored), first, *rewards])
        points = [*costs.line(), *further]
        line = [self._in_replicate(name, point) for point in points]
        alpha_data = jobs.files((costs.settings.alpha.prompts, costs.settings.sft.test))
        parts = [name] if name else []
        self._add("alpha", parts, costs.alpha(len(points)), [*line, first, reward, *alpha_data])
        names = {run.name for run in frontier_runs(self.config)}
        if measured := [policy for policy in found if policy.method in names]:
            of_policies = [trained[policy.name] for policy in measured]
            needs = [*of_policies, first, *rewards, *jobs.files([costs.settings.alpha.prompts])]
            self._add("frontier", parts, costs.frontier([policy.method for policy in measured]), needs)
        self._judgments(name, answers)

    def add(self) -> None:
        """Add all of the model's jobs to the grid's."""
        self._add("data", [], self.costs.data(), [self.base, *self.jobs.files(self.jobs.sizes.sources(self.model))])
        further = self.costs.settings.alpha.also
        held_out = [] if self.config.reward.held_out is None else [self._reward(HELD_OUT)]
        for number, (name, replicate) in enumerate(self.replicates.items()):
            rewards = [self._reward(reward_owner(self.config, name)), *held_out]
            self._replicate(name, replicate, rewards, further if number == 0 else [])
