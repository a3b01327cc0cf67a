"""Training a policy, whatever the algorithm: sample, score, then some epochs of updates; resuming where it stopped.

Runs on one device or many (salsa/devices/processes.py). Batches that do not fit in memory are processed in
micro-batches. docs/metrics.md explains the metrics.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from salsa.algorithms.algorithm import Algorithm
from salsa.algorithms.grpo import Grpo
from salsa.algorithms.ppo import Ppo
from salsa.algorithms.rloo import Rloo
from salsa.alignment.resume import Checkpoints
from salsa.checkpoints.loading import autocast
from salsa.config.algorithms import GrpoSettings, PpoSettings, RlooSettings, RlSettings
from salsa.devices import processes
from salsa.models.trained import Trained
from salsa.rollouts.experience import collect, prompt_batches
from salsa.rollouts.metrics import Metrics, check_rollout, mean_of, rollout_metrics
from salsa.rollouts.models import Models
from salsa.rollouts.rewards import Prompt
from salsa.rollouts.samplers import Sampler
from salsa.runtime.errors import Interrupted, UserError
from salsa.runtime.log import log, steps
from salsa.runtime.seeds import derive_seed


def make_algorithm(models: Models, settings: RlSettings, value: Callable[[], Trained]) -> Algorithm[Any, Any]:
    """The algorithm that these settings are for. `value` loads a value model, for algorithms that train one."""
    match settings:
        case PpoSettings():
            return Ppo(models, value(), settings)
        case RlooSettings():
            return Rloo(models, settings)
        case GrpoSettings():
            return Grpo(models, settings)
    raise TypeError(type(settings))


class Training:
    """A run's models, algorithm and random generators.

    No seed depends on the method: runs of different methods with one RL seed get the same prompts and random numbers.
    """

    def __init__(
        self,
        algorithm: Algorithm[Any, Any],
        models: Models,
        sampler: Sampler,
        prompts: Sequence[Prompt],
        settings: RlSettings,
        seed: int,
        rl_seed: int,
        gold: bool,
    ) -> None:
        def derived(*names: str | int) -> int:
            return derive_seed(seed, "ppo", rl_seed, *names)

        def generator(name: str) -> torch.Generator:
            return torch.Generator().manual_seed(derived(name))

        if settings.train_batch_size % processes.count():
            raise UserError(
                f"ppo.train_batch_size: {settings.train_batch_size} is not a multiple of the {processes.count()} "
                "processes: change one of them"
            )
        self.algorithm, self.models, self.sampler, self.settings = algorithm, models, sampler, settings
        self.gold, self.derived = gold, derived
        self.batches = prompt_batches(prompts, settings.rollout_batch_size // settings.group, generator("prompts"))
        self.shuffles = generator("minibatches")

    def orders(self) -> list[list[int]]:
        """Draw the order of the rollout's responses for each epoch."""
        size = self.settings.rollout_batch_size
        return [torch.randperm(size, generator=self.shuffles).tolist() for _ in range(self.settings.epochs)]

    def step(self, step: int) -> Metrics:
        """One rollout and its updates; returns the metrics. After a UserError the failing update is not applied."""
        settings, algorithm = self.settings, self.algorithm
        prompts = [prompt for prompt in next(self.batches) for _ in range(settings.group)]
        seeds = [self.derived("sampling", step, i) for i in range(len(prompts))]
        experience = collect(self.models, self.sampler, prompts, settings, seeds)
        with torch.no_grad(), autocast(settings.dtype):
            targets, figures = algorithm.targets(experience)
        metrics = rollout_metrics(experience, self.models, settings.beta, self.gold) | figures
        check_rollout(experience, metrics, settings)
        rate, updates = algorithm.policy.rate(), []
        for order in self.orders():
            for begin in range(0, len(order), settings.train_batch_size):
                rows = order[begin : begin + settings.train_batch_size]
                updates.append(algorithm.update(experience, targets, rows))
                self.models.after_step(algorithm.policy.steps)
        episodes = (step + 1) * settings.rollout_batch_size
        return {"step": step, "episodes": episodes, **metrics, **mean_of(updates), "learning_rate": rate}

    def state(self) -> dict[str, Any]:
        """Everything that steps change, except the random generators."""
        references = {str(number): model.state_dict() for number, model in enumerate(self.models.moving_references())}
        return {name: learner.state() for name, learner in self.algorithm.learners.items()} | {"references": references}

    def restore(self, state: dict[str, Any], steps: int) -> None:
        """Restore the `state` after `steps` steps, and advance the random generators by as many."""
        for name, learner in self.algorithm.learners.items():
            learner.restore(state[name])
        for _ in range(steps):
            next(self.batches)
            self.orders()


def train(
    training: Training,
    checkpoints: Checkpoints | None = None,
    report: Callable[[Metrics], None] = lambda metrics: None,
    stop_requested: Callable[[], bool] = lambda: False,
    keep: Callable[[int], None] = lambda step: None,
) -> list[Metrics]:
    """Train in place, resuming from the newest checkpoint. Returns the metrics of all steps; reports each new step.

    `keep` is called after each of `checkpoints_at` steps.
    """
    name, history = training.algorithm.name, list[Metrics]()
    if checkpoints is not None:
        state, history = checkpoints.load(training.state)
        if state is not None:
            training.restore(state, len(history))
            log.info("%s: resuming after %d steps, from %s", name, len(history), checkpoints.path(len(history)))
    total, done = training.settings.steps, len(history)
    shown = ("reward", "kl_ref_k1", "length", "eos_share")
    for step in steps(range(total), name, lambda: {key: history[-1][key] for key in shown if history}, done):
        try:
            history.append(training.step(step))
        except UserError as error:
            kept = f"; saved states are in {checkpoints.folder}" if checkpoints and checkpoints.newest() else ""
            raise UserError(f"{name}: step {step}: {error}{kept}") from None
        report(history[-1])
        if step + 1 in training.settings.checkpoints_at:
            keep(step + 1)
        if checkpoints is not None:
            checkpoints.append(history[-1])
            stopping = processes.any_process(stop_requested()) and step + 1 < total
            if stopping or checkpoints.due():
                checkpoints.save(step + 1, training.state(), history)
            if stopping:
                raise Interrupted(
                    f"{name}: stopped after {step + 1} steps on SIGTERM; rerun the same command to resume from "
                    f"{checkpoints.path(step + 1)}"
                )
    return history
