"""PPO from top to bottom: sample, score, then some epochs of clipped policy and value updates.

Runs on one device or many (salsa/devices/processes.py). Batches that do not fit in memory are processed in
micro-batches. docs/metrics.md explains the metrics.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from accelerate.utils import DistributedType
from torch import Tensor

from salsa.config.sections import PpoSettings
from salsa.devices import processes
from salsa.lora.shared import TrainedAdapter
from salsa.models.responses import Sequences, log_probs, values
from salsa.models.trained import Trained
from salsa.ppo.learner import AdapterLearner, Learner
from salsa.ppo.math import k3, policy_losses, value_losses
from salsa.ppo.metrics import Metrics, check_rollout, mean_of, rollout_metrics
from salsa.ppo.models import Models, Prompt
from salsa.ppo.resume import Checkpoints
from salsa.ppo.rollout import Rollout, collect, prompt_batches
from salsa.ppo.samplers import Sampler
from salsa.runtime.errors import Interrupted, UserError
from salsa.runtime.log import steps
from salsa.runtime.seeds import derive_seed


def make_learner(trained: Trained, rate: float, settings: PpoSettings, updates: int) -> Learner:
    """A Learner for the way the run was launched."""
    if isinstance(trained, TrainedAdapter):
        return AdapterLearner(trained, rate, settings, updates)
    if processes.accelerator().distributed_type != DistributedType.DEEPSPEED:
        return Learner(trained, rate, settings, updates)
    from salsa.ppo.zero import ZeroLearner  # needs DeepSpeed, an optional dependency

    return ZeroLearner(trained, rate, settings, updates)


def update(
    models: Models, policy: Learner, value: Learner, rollout: Rollout, rows: list[int], settings: PpoSettings
) -> Metrics:
    """One optimiser step of policy and value model on the responses `rows`; losses are means over their tokens.

    Each process handles its share of the rows. The policy is updated first, then the value model, so gradients of only
    one model exist at a time.
    """
    prompts, responses = [prompt.ids for prompt in rollout.prompts], [answer.token_ids for answer in rollout.answers]
    count = sum(len(responses[row]) for row in rows)
    lengths = [len(prompts[row]) + len(responses[row]) for row in rows]
    parts = processes.balanced_batches(lengths, settings.micro_batch_size, settings.micro_batch_tokens)
    batches = [[rows[place] for place in part] for part in parts]

    def policy_figures(sequences: Sequences, select: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        old = select(rollout.log_probs)
        new = models.policy.forward(lambda model: log_probs(model, sequences, settings.temperature))
        losses, clipped = policy_losses(new, old, select(rollout.advantages), settings.clip)
        return {"loss_policy": losses, "clip_fraction_policy": clipped, "approx_kl": k3(old, new)}

    def value_figures(sequences: Sequences, select: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        new = models.value.forward(lambda model: values(model, sequences, models.normalisation))
        losses, clipped = value_losses(new, select(rollout.values), select(rollout.returns), settings.value_clip)
        return {"loss_value": losses, "clip_fraction_value": clipped}

    metrics: Metrics = {}
    for name, trained, figures in (("policy", policy, policy_figures), ("value", value, value_figures)):
        sums: dict[str, Tensor] = {}
        for batch in batches:
            sequences = Sequences.build([prompts[i] for i in batch], [responses[i] for i in batch])
            select = partial(select_tokens, rows=batch, mask=rollout.mask[batch], device=sequences.tokens.device)
            with trained.micro_batch(last=batch is batches[-1]):
                by_token = figures(sequences, select)
                # Gradients are averaged over processes, so the sum over local tokens is scaled up by their number.
                trained.backward(by_token[f"loss_{name}"].sum() / count * processes.count())
            for key, figure in by_token.items():
                sums[key] = sums.get(key, 0.0) + figure.detach().float().sum()
        totals = processes.sum_over_processes({key: figure.item() for key, figure in sums.items()})
        metrics |= {key: figure / count for key, figure in totals.items()}
        metrics[f"grad_norm_{name}"] = trained.clip()
        if names := not_finite(metrics):
            raise UserError(
                f"{' and '.join(names)} not finite: lower ppo.learning_rate and ppo.value_learning_rate, or set "
                "dtype float32"
            )
        trained.step()
    return metrics


def select_tokens(figures: Tensor, rows: list[int], mask: Tensor, device: torch.device) -> Tensor:
    """The figures [N] of the real tokens of some rows, from figures [B, T]; `mask` is that of the rows."""
    return figures[rows][mask].to(device)


def not_finite(metrics: Metrics) -> list[str]:
    """Names of metrics that are NaN or infinite."""
    return [name for name, figure in metrics.items() if isinstance(figure, float) and not math.isfinite(figure)]


class Training:
    """A run's models, optimisers and random generators.

    No seed depends on the method: runs of different methods with one RL seed get the same prompts and random numbers.
    """

    def __init__(
        self,
        models: Models,
        sampler: Sampler,
        prompts: Sequence[Prompt],
        settings: PpoSettings,
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
        self.models, self.sampler, self.settings, self.gold, self.derived = models, sampler, settings, gold, derived
        self.batches = prompt_batches(prompts, settings.rollout_batch_size, generator("prompts"))
        self.shuffles = generator("minibatches")
        updates = settings.steps * settings.epochs * (settings.rollout_batch_size // settings.train_batch_size)
        self.policy = make_learner(models.policy, settings.learning_rate, settings, updates)
        self.value = make_learner(models.value, settings.value_learning_rate, settings, updates)

    def orders(self) -> list[list[int]]:
        """Draw the order of the rollout's responses for each epoch."""
        size = self.settings.rollout_batch_size
        return [torch.randperm(size, generator=self.shuffles).tolist() for _ in range(self.settings.epochs)]

    def step(self, step: int) -> Metrics:
        """One rollout and its updates; returns the metrics. After a UserError the failing update is not applied."""
        settings, prompts = self.settings, next(self.batches)
        seeds = [self.derived("sampling", step, i) for i in range(len(prompts))]
        rollout = collect(self.models, self.sampler, prompts, settings, seeds)
        metrics = rollout_metrics(rollout, self.models, settings.beta, self.gold)
        check_rollout(rollout, metrics, settings)
        rate, updates = self.policy.rate(), []
        for order in self.orders():
            for begin in range(0, len(order), settings.train_batch_size):
                rows = order[begin : begin + settings.train_batch_size]
                updates.append(update(self.models, self.policy, self.value, rollout, rows, settings))
                self.models.after_step(self.policy.steps)
        episodes = (step + 1) * settings.rollout_batch_size
        return {"step": step, "episodes": episodes, **metrics, **mean_of(updates), "learning_rate": rate}

    def state(self) -> dict[str, Any]:
        """Everything that steps change, except the random generators."""
        return {
            "policy": self.policy.state(),
            "value": self.value.state(),
            "references": {
                str(number): model.state_dict() for number, model in enumerate(self.models.moving_references())
            },
        }

    def restore(self, state: dict[str, Any], steps: int) -> None:
        """Restore the `state` after `steps` steps, and advance the random generators by as many."""
        self.policy.restore(state["policy"])
        self.value.restore(state["value"])
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
    history: list[Metrics] = []
    if checkpoints is not None:
        state, history = checkpoints.load(training.state)
        if state is not None:
            training.restore(state, len(history))
    total, done = training.settings.steps, len(history)
    shown = ("reward", "kl_ref_k1", "length", "eos_share")
    for step in steps(range(total), "ppo", lambda: {key: history[-1][key] for key in shown if history}, done):
        try:
            history.append(training.step(step))
        except UserError as error:
            kept = f"; saved states are in {checkpoints.folder}" if checkpoints and checkpoints.newest() else ""
            raise UserError(f"ppo: step {step}: {error}{kept}") from None
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
                    f"ppo: stopped after {step + 1} steps on SIGTERM; rerun the same command to resume from "
                    f"{checkpoints.path(step + 1)}"
                )
    return history
