"""Input files of each rule that follow from the config. Most methods take a job's wildcards."""

from collections.abc import Iterable
from pathlib import Path

from eval.grid.layout import alpha_line, generation_file, grid_of, measured_files, training_file
from eval.ledger.calls import CALLS
from eval.ledger.index import INDEX
from eval.workflow.paths import GridPaths, Wildcards
from salsa.config.algorithms import Dpo, Grpo, Ppo, Rloo
from salsa.config.config import algorithm_settings, for_model
from salsa.config.layout import combined_folders, method_reward_folder, reward_owner
from salsa.config.methods import combined_rewards
from salsa.config.naming import parse_soup_name
from salsa.data.training_sets import DataSet, all_sets, training_sets


class Inputs:
    """Inputs of the rules, each under the name that its rule gives it."""

    def __init__(self, paths: GridPaths):
        self.paths, self.config = paths, paths.config

    def base(self, wildcards: Wildcards) -> list[str]:
        """The mini world for a model pretrained on it, or the folder of a local model."""
        model = self.config.models[wildcards.model]
        if model.world:
            return [self.paths.world]
        return [model.local.path] if model.local else []

    def all_data(self, wildcards: Wildcards) -> list[str]:
        """Files of all training and test sets of a model."""
        return self._of_sets(all_sets(self.config, wildcards.model).values())

    def training_data(self) -> list[str]:
        """Files of all training sets of all models."""
        return self._of_sets(training_sets(self.config).values())

    def _of_sets(self, sets: Iterable[DataSet]) -> list[str]:
        return sorted(set(self.paths.files(dataset.source for dataset in sets)))

    def sft_data(self, wildcards: Wildcards) -> list[str]:
        """Demonstrations."""
        settings = for_model(self.config, wildcards.model).sft
        return self.paths.files([settings.train, settings.test])

    def reward_data(self, wildcards: Wildcards) -> list[str]:
        """Preference pairs, and prompts for normalisation."""
        settings = for_model(self.config, wildcards.model).reward
        return self.paths.files([settings.train, settings.test, settings.normalisation_prompts])

    def rl_data(self, wildcards: Wildcards) -> list[str]:
        """Prompts, or DPO's pairs."""
        match algorithm_settings(self.config, wildcards.model, wildcards.method):
            case Ppo(prompts=source) | Rloo(prompts=source) | Grpo(prompts=source) | Dpo(train=source):
                return self.paths.files([source])

    def alpha_data(self, wildcards: Wildcards) -> list[str]:
        """Prompts, and held-out demonstrations."""
        settings = for_model(self.config, wildcards.model)
        return self.paths.files([settings.alpha.prompts, settings.sft.test])

    def frontier(self, wildcards: Wildcards) -> list[str]:
        """Policies that the stage `frontier` measures."""
        return [self.paths.policy(wildcards.model, name) for name in self.paths.on_the_frontier(wildcards)]

    def frontier_rewards(self, wildcards: Wildcards) -> list[str]:
        """Rewards that some policies of the stage `frontier` were trained against instead of the replicate's own."""
        return sorted(set(self.paths.frontier_rewards(wildcards).values()))

    def ingredients(self, wildcards: Wildcards) -> list[str]:
        """Checkpoints that a soup's name lists."""
        return [self.paths.checkpoint(wildcards.model, name) for name in parse_soup_name(wildcards.soup)]

    def tried(self, wildcards: Wildcards) -> list[str]:
        """SFT models that a greedy soup tries."""
        return [self.paths.checkpoint(wildcards.model, name) for name in wildcards.tried.split("+")]

    def alpha_prompts(self, wildcards: Wildcards) -> list[str]:
        """Prompts on which checkpoints are measured."""
        return self.paths.files([for_model(self.config, wildcards.model).alpha.prompts])

    def alpha_line(self, wildcards: Wildcards) -> list[str]:
        """Checkpoints that the stage `alpha` measures."""
        alpha = self.config.alpha
        names = [*alpha_line(alpha).values(), *self.paths.further(wildcards)]
        replicate = self.paths.replicate(wildcards)
        return [self.paths.in_replicate(wildcards.model, replicate, name) for name in names]

    def first_sft(self, wildcards: Wildcards) -> str:
        """SFT 1 in the job's replicate."""
        return self.paths.first_sft(wildcards)

    def reward_model(self, wildcards: Wildcards) -> str:
        """The reward model of the job's replicate."""
        return self.paths.reward_model(wildcards)

    def method_reward(self, wildcards: Wildcards) -> str:
        """The reward that a method's policies are trained against."""
        replicate = self.paths.replicate(wildcards)
        return method_reward_folder(self.config, wildcards.model, replicate, wildcards.method)

    def scoring_models(self, wildcards: Wildcards) -> list[str]:
        """The reward models of an ensemble, whose folder only names them."""
        reward = self.config.methods[wildcards.method].reward
        if reward is None or reward.scoring_models == 1:
            return []
        owner = reward_owner(self.config, self.paths.replicate(wildcards))
        return combined_folders(self.config, wildcards.model, owner, reward)

    def combined(self, wildcards: Wildcards) -> list[str]:
        """The reward models that a job makes one reward of."""
        reward = combined_rewards(self.config.methods)[wildcards.combined]
        return combined_folders(self.config, wildcards.model, wildcards.replicate.removeprefix("-"), reward)

    def combined_data(self, wildcards: Wildcards) -> list[str]:
        """Held-out preference pairs, and prompts for normalisation."""
        settings = for_model(self.config, wildcards.model).reward
        return self.paths.files([settings.test, settings.normalisation_prompts])

    def held_out_reward(self, wildcards: Wildcards) -> list[str]:
        """The reward model that no policy is trained against; empty if the grid has none."""
        return self.paths.held_out_reward(wildcards)

    def reward_start(self, wildcards: Wildcards) -> str:
        """The SFT model that a reward model starts from."""
        return self.paths.reward_start(wildcards)

    def init(self, wildcards: Wildcards) -> str:
        """Checkpoint that a method's training starts from."""
        return self.paths.start(wildcards.model, self.paths.trained_by(wildcards))

    def warp_start(self, wildcards: Wildcards) -> str:
        """Where the runs start that a job averages."""
        return self.paths.warp_start(wildcards.model, self.paths.trained_by(wildcards), self._last_round(wildcards))

    def warp_runs(self, wildcards: Wildcards) -> list[str]:
        """The runs that a job averages."""
        runs = self.paths.warp_runs(self.paths.trained_by(wildcards))[self._last_round(wildcards) - 1]
        return [self.paths.trained_policy(wildcards.model, run) for run in runs]

    def warp_metrics(self, wildcards: Wildcards) -> list[str]:
        """Metrics of all runs of a policy, by round."""
        rounds = self.paths.warp_runs(self.paths.trained_by(wildcards))
        results = Path(self.paths.results)
        return [str(training_file(results, wildcards.model, run.name)) for runs in rounds for run in runs]

    def _last_round(self, wildcards: Wildcards) -> int:
        """The round whose runs a job averages: the one before the start that it makes, or the last one."""
        warp = self.config.methods[wildcards.method].warp
        assert warp is not None
        return int(getattr(wildcards, "round", warp.rounds + 1)) - 1

    def reference(self, wildcards: Wildcards) -> list[str]:
        """Checkpoints of a method's reference. That of a run of WARP begins where the run does."""
        if self.config.methods[wildcards.method].warp_run is not None:
            return [self.init(wildcards)]
        return self.paths.reference(wildcards.model, wildcards.method, self.paths.replicate(wildcards))

    def answering_policies(self, wildcards: Wildcards) -> list[str]:
        """Checkpoints whose answers a job makes or scores: one policy's, or those of all policies of a replicate."""
        return [self.paths.policy(wildcards.model, policy) for policy in self.paths.answering(wildcards)]

    def final_references(self, wildcards: Wildcards) -> list[str]:
        """References of a job's policies at the end of training. One that moved with its policy is gone."""
        names = self.paths.answering(wildcards)
        found = [path for name in names for path in self.paths.final_reference(wildcards.model, name)]
        return list(dict.fromkeys(found))

    def questions(self) -> list[str]:
        """Question files of all benchmarks."""
        return self.paths.all_question_files()

    def benchmark(self, wildcards: Wildcards) -> list[str]:
        """All files of a benchmark: questions, reference answers, judge prompts."""
        return self.paths.benchmark_files(self.config.benchmarks[wildcards.benchmark])

    def benchmarks(self) -> list[str]:
        """All files of all benchmarks."""
        return [path for benchmark in self.config.benchmarks.values() for path in self.paths.benchmark_files(benchmark)]

    def compared_answers(self, wildcards: Wildcards) -> list[str]:
        """Answers of all policies of a comparison."""
        names = sorted({policy for pair in self.paths.pairs(wildcards) for policy in pair})
        results = Path(self.paths.results)
        return [str(generation_file(results, wildcards.model, name, wildcards.benchmark)) for name in names]

    def measured(self) -> list[str]:
        """All results that the tables are made of."""
        return [str(path) for path in measured_files(Path(self.paths.results), grid_of(self.config)).values()]

    def archived_file(self, wildcards: Wildcards) -> list[str]:
        """A file of verdicts to import, and its questions."""
        assert self.config.calibration is not None
        file = self.config.calibration.files[wildcards.archived]
        return [path for path in (file.path, file.questions) if path]

    def archive(self) -> list[str]:
        """What calibration reads: summaries of the imported files (or the archive itself), and templates."""
        calibration = self.config.calibration
        assert calibration is not None
        imported = [f"{self.paths.results}/archive/{name}.txt" for name in calibration.files]
        archive = imported or [f"{calibration.archive}/{name}" for name in (CALLS, INDEX)]
        return archive + [path for path in [calibration.templates] if path]

    def calibration(self) -> list[str]:
        """The judge's calibration, if the config has one."""
        return [self.paths.calibration] if self.config.calibration else []

    def assumptions(self) -> list[str]:
        """The file of assumptions, if the config names one."""
        return [self.paths.assumptions] if self.paths.assumptions else []
