"""Command-line options of the stages that follow from the config. Most methods take a job's wildcards."""

from collections.abc import Sequence
from typing import Any

from eval.grid.layout import alpha_line
from eval.workflow.paths import GridPaths, Wildcards
from salsa.config.naming import parse_soup_name
from salsa.config.references import Fixed, strategy_json
from salsa.config.replicates import HELD_OUT, suffix
from salsa.config.sections import DataSource


class Options:
    """Options of the stages. `to_fetch` is {local file: hub data set}."""

    def __init__(self, paths: GridPaths, to_fetch: dict[str, DataSource]):
        self.paths, self.config, self.to_fetch = paths, paths.config, to_fetch
        self.downloads = {
            path: file for benchmark in self.config.benchmarks.values() for path, file in benchmark.download.items()
        }

    def hub_data_set(self, wildcards: Wildcards, output: Sequence[str]) -> list[str]:
        """Which split of which hub data set to fetch."""
        source = self.to_fetch[str(output[0])]
        return [f"--hub={source.hub}", f"--revision={source.revision}", f"--split={source.split}"]

    def download(self, wildcards: Wildcards, output: Sequence[str]) -> list[str]:
        """The URL of a file and its sha256."""
        file = self.downloads[str(output[0])]
        return [f"--url={file.url}", f"--sha256={file.sha256}"]

    def world(self, wildcards: Wildcards) -> list[str]:
        """The mini world, for a model that is pretrained on it."""
        return [f"--world={self.paths.world}"] if self.config.models[wildcards.model].world else []

    def ingredients(self, wildcards: Wildcards) -> list[str]:
        """A soup's checkpoints with their weights."""
        model = wildcards.model
        return [
            f"--ingredient={self.paths.checkpoint(model, name)}={weight!r}"
            for name, weight in parse_soup_name(wildcards.soup).items()
        ]

    def tried(self, wildcards: Wildcards) -> list[str]:
        """SFT models that a greedy soup tries."""
        return [f"--model={self.paths.checkpoint(wildcards.model, name)}" for name in wildcards.tried.split("+")]

    def alpha_line(self, wildcards: Wildcards) -> list[str]:
        """Checkpoints along the line between two SFT models, and further ones."""
        model, replicate = wildcards.model, self.paths.replicate(wildcards)
        line = [
            f"--checkpoint={alpha:g}={self.paths.in_replicate(model, replicate, name)}"
            for alpha, name in alpha_line(self.config.alpha).items()
        ]
        further = self.paths.further(wildcards)
        return line + [f"--also={self.paths.in_replicate(model, replicate, name)}" for name in further]

    def frontier(self, wildcards: Wildcards) -> list[str]:
        """Policies that the stage `frontier` measures, with their checkpoints."""
        names = self.paths.on_the_frontier(wildcards)
        return [f"--policy={name}={self.paths.policy(wildcards.model, name)}" for name in names]

    def trained_on(self, wildcards: Wildcards) -> list[str]:
        """Policies that the stage `frontier` measures, with their rewards if those are not the replicate's own."""
        rewards = self.paths.frontier_rewards(wildcards)
        return [f"--trained-on={name}={folder}" for name, folder in rewards.items()]

    def run(self, wildcards: Wildcards) -> str:
        """Name of the job's random draws: its model and replicate, and which run of WARP it is."""
        name = f"{wildcards.model}{suffix(self.paths.replicate(wildcards))}"
        run = self.config.methods[wildcards.method].warp_run if hasattr(wildcards, "method") else None
        return name if run is None else f"{name}.{run.round}.{run.number}"

    def warp_ingredients(self, wildcards: Wildcards, input: Any) -> list[str]:
        """The runs that a job averages and the start to which their average is drawn back, with weights."""
        warp = self.config.methods[wildcards.method].warp
        assert warp is not None
        eta = warp.eta if hasattr(wildcards, "round") else warp.last_eta
        weights = dict.fromkeys(input.runs, eta / warp.runs) | {input.start: 1 - eta}
        return [f"--ingredient={folder}={weight!r}" for folder, weight in weights.items() if weight]

    def reward_seed(self, wildcards: Wildcards) -> list[str]:
        """The seed of a replicate's own reward model, or that it is the held-out one. Nothing for the shared one."""
        owner = wildcards.replicate.removeprefix("-")
        if owner == HELD_OUT:
            return ["--held-out"]
        own = self.paths.replicates[owner].reward_seed if wildcards.replicate else None
        return [] if own is None else [f"--reward-seed={own}"]

    def order(self, wildcards: Wildcards) -> list[str]:
        """In which order a reward model reads its pairs. Nothing for the first one."""
        return [f"--order={wildcards.order.removeprefix('.')}"] if wildcards.order else []

    def held_out_reward(self, wildcards: Wildcards) -> list[str]:
        """The reward model that no policy is trained against. Nothing if the grid has none."""
        return [f"--held-out-reward={folder}" for folder in self.paths.held_out_reward(wildcards)]

    def algorithm(self, wildcards: Wildcards) -> str:
        """What trains a method."""
        return self.config.methods[wildcards.method].algorithm

    def strategy(self, wildcards: Wildcards) -> list[str]:
        """How a method's reference uses its checkpoints. Nothing for a fixed one, the stages' default."""
        return [f"--strategy={text}" for text in self._strategy(wildcards.method)]

    def _strategy(self, method: str) -> list[str]:
        """A method's use of its reference's checkpoints, as JSON. Nothing for a fixed one."""
        strategy, _ = self.config.methods[method].reference_parts()
        return [] if strategy == Fixed() else [strategy_json(strategy)]

    def answering_policies(self, wildcards: Wildcards) -> list[str]:
        """Policies whose answers a job makes or scores, with their checkpoints."""
        policies = self.paths.answering(wildcards)
        return [f"--policy={policy}={self.paths.policy(wildcards.model, policy)}" for policy in policies]

    def final_references(self, wildcards: Wildcards) -> list[str]:
        """References of a job's policies at the end of training. One that moved with its policy is gone."""
        found = []
        for name in self.paths.answering(wildcards):
            checkpoints = self.paths.final_reference(wildcards.model, name)
            found += [f"--reference={name}={folder}" for folder in checkpoints]
            if checkpoints:
                method = self.paths.policies[name].method
                found += [f"--strategy={name}={text}" for text in self._strategy(method)]
        return found

    def pairs(self, wildcards: Wildcards) -> list[str]:
        """Pairs of policies to compare."""
        return [part for pair in self.paths.pairs(wildcards) for part in ("--pair", *pair)]

    def archived_file(self, wildcards: Wildcards) -> list[str]:
        """A file of verdicts to import: its format, its path, and its questions."""
        assert self.config.calibration is not None
        file = self.config.calibration.files[wildcards.archived]
        return [f"--format={file.format}", file.path, *([f"--questions={file.questions}"] if file.questions else [])]

    def calibration_sample(self) -> list[str]:
        """How many archived items to judge again, and their templates."""
        calibration = self.config.calibration
        assert calibration is not None
        values = {"items": calibration.items, "templates": calibration.templates}
        return [f"--{name}={value}" for name, value in values.items() if value is not None]

    def calibration(self) -> list[str]:
        """The judge's calibration for the report, if the config has one."""
        return [f"--calibration={self.paths.calibration}"] if self.config.calibration else []

    def assumptions(self, values: str) -> list[str]:
        """The file of assumptions for the report, if the config names one, and the grid's settings in `values`."""
        return [f"--assumptions={self.paths.assumptions}", f"--values={values}"] if self.paths.assumptions else []
