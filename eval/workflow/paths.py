"""Folders and files of a grid."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

from eval.grid.layout import answering, calibration_file, pairs, policies, reward_owners
from salsa.config.config import Config, all_replicates, frontier_runs
from salsa.config.layout import (
    checkpoint_folder,
    first_sft_folder,
    held_out_folder,
    method_reward_folder,
    replicate_folder,
    reward_folder,
    root,
    world_folder,
)
from salsa.config.naming import Checkpoint
from salsa.config.replicates import Policy, Replicate, policy_name, suffix
from salsa.config.sections import BenchmarkSettings, DataSource


class Wildcards(Protocol):
    """A job's wildcards: `wildcards.model`, `wildcards.policy`, …"""

    def __getattr__(self, name: str) -> str: ...


@dataclass(frozen=True)
class GridPaths:
    """Folders and files of a grid, relative to the folder that Snakemake runs in.

    `config` has local copies in place of hub data sets (`with_local_copies`). `workflow_folder` holds the Snakefile.
    """

    config: Config
    workflow_folder: str

    @cached_property
    def data(self) -> str:
        """Folder of the grid's own data: the mini world and downloads."""
        return f"{self.config.paths.data}/{self.config.grid}"

    @cached_property
    def prepared(self) -> str:
        """Cache of token ids, which all grids share."""
        return f"{self.config.paths.data}/prepared"

    @cached_property
    def world(self) -> str:
        return world_folder(self.config)

    @cached_property
    def checkpoints(self) -> str:
        return root(self.config)

    @cached_property
    def results(self) -> str:
        return f"{self.config.paths.results}/{self.config.grid}"

    @cached_property
    def ledger(self) -> str:
        """Folder of judge calls."""
        return self.config.paths.ledger or f"{self.results}/ledger"

    @cached_property
    def settings(self) -> str:
        """Folder of the stages' settings files."""
        return f"{self.results}/settings"

    @cached_property
    def calibration(self) -> str:
        """The judge's calibration."""
        return str(calibration_file(Path(self.results)))

    @cached_property
    def assumptions(self) -> str | None:
        """The file of assumptions, if the config names one: as named, or in the Snakefile's folder."""
        name = self.config.assumptions
        return name if name is None or Path(name).exists() else f"{self.workflow_folder}/{name}"

    @cached_property
    def logs(self) -> str:
        return f"logs/{self.config.grid}"

    @cached_property
    def trained(self) -> list[str]:
        """Methods that train a policy."""
        return [name for name, method in self.config.methods.items() if method.algorithm != "none"]

    @cached_property
    def replicates(self) -> dict[str, Replicate]:
        """The replicates by name; the only one of a grid without the section is called ""."""
        return all_replicates(self.config)

    @cached_property
    def suffixes(self) -> list[str]:
        """Values of the wildcard `replicate`: what each replicate adds to names."""
        return [suffix(name) for name in self.replicates]

    @cached_property
    def reward_suffixes(self) -> list[str]:
        """Values of the wildcard `replicate` for reward models."""
        return [suffix(owner) for owner in reward_owners(self.replicates, self.config.reward.held_out is not None)]

    @cached_property
    def seeds(self) -> list[int]:
        """All seeds of SFT runs and RL seeds."""
        draws = self.replicates.values()
        return sorted({seed for replicate in draws for seed in (*replicate.sft.values(), *(replicate.rl_seeds or ()))})

    @cached_property
    def policies(self) -> dict[str, Policy]:
        """All policies of a model by name: METHOD-REPLICATE-sSEED."""
        return {policy.name: policy for policy in policies(self.config.methods, self.replicates)}

    @cached_property
    def answering_policies(self) -> list[str]:
        """Names of the policies that answer the benchmarks."""
        return [policy.name for policy in answering(self.config.methods, self.replicates)]

    def on_the_frontier(self, wildcards: Wildcards) -> list[str]:
        """Names of a replicate's policies that the stage `frontier` measures."""
        methods, replicate = {run.name for run in frontier_runs(self.config)}, self.replicate(wildcards)
        return [p.name for p in self.policies.values() if p.method in methods and p.replicate == replicate]

    def frontier_rewards(self, wildcards: Wildcards) -> dict[str, str]:
        """Rewards of the policies that the stage `frontier` measures, where methods combine several reward models."""
        methods = {name: self.policies[name].method for name in self.on_the_frontier(wildcards)}
        return {
            name: method_reward_folder(self.config, wildcards.model, self.replicate(wildcards), method)
            for name, method in methods.items()
            if self.config.methods[method].reward is not None
        }

    @cached_property
    def together(self) -> list[str]:
        """Policies that share a job of `generate` and one of `score`, with the wildcard `replicate` in their names.

        None unless the config says `policies_together`, which needs the same RL seeds in all replicates.
        """
        if not self.config.policies_together:
            return []
        first = next(iter(self.replicates))
        of_first = answering(self.config.methods, {first: self.replicates[first]})
        return [policy_name(policy.method, "{replicate}", policy.rl_seed) for policy in of_first]

    def trained_by(self, wildcards: Wildcards) -> Policy:
        """The policy that a job trains."""
        return Policy(wildcards.method, self.replicate(wildcards), int(wildcards.seed))

    def replicate(self, wildcards: Wildcards) -> str:
        """The replicate of a job: that of its policy, or of the wildcard `replicate`."""
        policy = getattr(wildcards, "policy", None)
        return self.policies[policy].replicate if policy else wildcards.replicate.removeprefix("-")

    def checkpoint(self, model: str, name: Checkpoint) -> str:
        """Folder of an SFT model, a soup or a perturbed model, named by the seeds of SFT runs."""
        return checkpoint_folder(self.config, model, name)

    def in_replicate(self, model: str, replicate: str, name: Checkpoint) -> str:
        """Folder of a checkpoint that is named by roles."""
        return replicate_folder(self.config, model, replicate, name)

    def first_sft(self, wildcards: Wildcards) -> str:
        """Folder of SFT 1 in the job's replicate."""
        return first_sft_folder(self.config, wildcards.model, self.replicate(wildcards))

    def reward_model(self, wildcards: Wildcards) -> str:
        """Folder of the reward model of the job's replicate."""
        return reward_folder(self.config, wildcards.model, self.replicate(wildcards))

    def reward_start(self, wildcards: Wildcards) -> str:
        """The SFT model that a reward model starts from: SFT 1 of its replicate, or of the first one."""
        owner, first = wildcards.replicate.removeprefix("-"), next(iter(self.replicates))
        return first_sft_folder(self.config, wildcards.model, owner if owner in self.replicates else first)

    def held_out_reward(self, wildcards: Wildcards) -> list[str]:
        """Folder of the reward model that no policy is trained against, if the grid has one."""
        folder = held_out_folder(self.config, wildcards.model)
        return [] if folder is None else [folder]

    def further(self, wildcards: Wildcards) -> list[Checkpoint]:
        """Checkpoints that the stage `alpha` measures beside the line: in the first replicate only."""
        return self.config.alpha.also if self.replicate(wildcards) == next(iter(self.replicates)) else []

    def policy(self, model: str, name: str) -> str:
        """Checkpoint that answers for a policy: the trained one, or the method's initial model."""
        policy = self.policies[name]
        method = self.config.methods[policy.method]
        if method.algorithm == "none":
            return self.in_replicate(model, policy.replicate, method.init)
        return self.trained_policy(model, policy)

    def trained_policy(self, model: str, policy: Policy) -> str:
        """Folder of a policy that is trained."""
        return f"{self.checkpoints}/policy/{model}/{policy.name}"

    def start(self, model: str, policy: Policy) -> str:
        """Checkpoint that a policy's training starts from: its method's, or the average of WARP's round before."""
        method = self.config.methods[policy.method]
        if method.warp_run is None or method.warp_run.round == 1:
            return self.in_replicate(model, policy.replicate, method.init)
        return self.warp_start(model, replace(policy, method=method.warp_run.of), method.warp_run.round)

    def warp_start(self, model: str, policy: Policy, number: int) -> str:
        """Where the runs of a round of a policy's WARP start; after the last round, the policy itself."""
        method = self.config.methods[policy.method]
        assert method.warp is not None
        if number == 1:
            return self.in_replicate(model, policy.replicate, method.init)
        if number > method.warp.rounds:
            return self.trained_policy(model, policy)
        return f"{self.checkpoints}/warp/{model}/{policy.name}/start-{number}"

    def warp_runs(self, policy: Policy) -> list[list[Policy]]:
        """The runs of a policy's WARP, round by round."""
        method = self.config.methods[policy.method]
        assert method.warp is not None
        runs = [replace(policy, method=run.name) for run in method.warp_runs(policy.method)]
        return [runs[begin : begin + method.warp.runs] for begin in range(0, len(runs), method.warp.runs)]

    def answering(self, wildcards: Wildcards) -> list[str]:
        """Policies whose answers a job makes or scores: one, or all policies of a replicate."""
        if not self.together:
            return [wildcards.policy]
        return [name.format(replicate=wildcards.replicate) for name in self.together]

    def reference(self, model: str, method: str, replicate: str) -> list[str]:
        """Checkpoints of a method's reference in a replicate."""
        _, checkpoints = self.config.methods[method].reference_parts()
        return [self.in_replicate(model, replicate, checkpoint) for checkpoint in checkpoints]

    def final_reference(self, model: str, name: str) -> list[str]:
        """The reference at the end of a policy's training; empty if it moved with the policy and is gone."""
        policy = self.policies[name]
        strategy, _ = self.config.methods[policy.method].reference_parts()
        return [] if strategy.moves else self.reference(model, policy.method, policy.replicate)

    def pairs(self, wildcards: Wildcards) -> list[tuple[str, str]]:
        """Pairs of policies of a comparison in a replicate."""
        comparison = self.config.comparisons[wildcards.comparison]
        return pairs(self.config.methods, self.replicates, comparison, self.replicate(wildcards))

    def files(self, sources: Iterable[DataSource]) -> list[str]:
        """What must exist before data sources can be read: their files, or the whole mini world for a file in it."""
        return [self._file(source) for source in sources]

    def _file(self, source: DataSource) -> str:
        assert source.path is not None, "hub data sets have local copies"
        return self.world if Path(source.path).is_relative_to(self.world) else source.path

    def question_files(self, benchmark: BenchmarkSettings) -> list[str]:
        """Files that a benchmark's questions are read from: its data, and the .py file of a benchmark of your own."""
        code = [benchmark.kind] if benchmark.kind.endswith(".py") else []
        return [*self.files([benchmark.questions]), *code]

    def all_question_files(self) -> list[str]:
        """Question files of all benchmarks, sorted."""
        benchmarks = self.config.benchmarks.values()
        return sorted({path for benchmark in benchmarks for path in self.question_files(benchmark)})

    def benchmark_files(self, benchmark: BenchmarkSettings) -> list[str]:
        """All files of a benchmark: questions, reference answers, judge prompts."""
        extra = [path for path in (benchmark.references, benchmark.judge_prompts) if path is not None]
        return [*self.question_files(benchmark), *extra]
