"""Folders and files of a grid."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from eval.tables.grid import calibration_file, pairs, policies
from salsa.config.config import Config
from salsa.config.layout import checkpoint_folder, root, world_folder
from salsa.config.naming import Checkpoint
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
    def method_of(self) -> dict[str, str]:
        """The method of each policy, in the config's order."""
        methods, seeds = self.config.methods, self.config.rl_seeds
        return {policy: method for method in methods for policy in policies(methods, seeds, method)}

    @cached_property
    def policies(self) -> list[str]:
        """All policies of a model: METHOD-sSEED, or METHOD if it is not trained."""
        return list(self.method_of)

    def checkpoint(self, model: str, name: Checkpoint) -> str:
        """Folder of an SFT model, a soup or a perturbed model."""
        return checkpoint_folder(self.config, model, name)

    def policy(self, model: str, policy: str) -> str:
        """Checkpoint that answers for a policy: the trained one, or the method's initial model."""
        method = self.config.methods[self.method_of[policy]]
        if method.algorithm == "none":
            return self.checkpoint(model, method.init)
        return f"{self.checkpoints}/policy/{model}/{policy}"

    def answering(self, wildcards: Wildcards) -> list[str]:
        """Policies that a job answers benchmarks with: one, or all policies of a model."""
        return self.policies if self.config.generate_together else [wildcards.policy]

    def reference(self, model: str, method: str) -> list[str]:
        """Checkpoints of a method's reference."""
        _, checkpoints = self.config.methods[method].reference_parts()
        return [self.checkpoint(model, checkpoint) for checkpoint in checkpoints]

    def final_reference(self, model: str, policy: str) -> list[str]:
        """The reference at the end of a policy's training; empty if it moved with the policy and is gone."""
        method = self.method_of[policy]
        strategy, _ = self.config.methods[method].reference_parts()
        return [] if strategy.moves else self.reference(model, method)

    def pairs(self, comparison: str) -> list[tuple[str, str]]:
        """Pairs of policies of a comparison."""
        return pairs(self.config.methods, self.config.rl_seeds, self.config.comparisons[comparison])

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
