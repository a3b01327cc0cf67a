"""The algorithm, top to bottom: sample, score, then some epochs of clipped policy and value updates.

On one device or on many (processes.py); what is larger than a device's memory goes through in micro-batches. What each
metric means: docs/metrics.md.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from accelerate.utils import DistributedType
from torch import Tensor

from salsa.config.sections import Ppo
from salsa.devices import processes
from salsa.ppo.learner import Learner
from salsa.ppo.math import k3, policy_losses, value_losses
from salsa.ppo.metrics import Metrics, check_rollout, mean_of, rollout_metrics
from salsa.ppo.models import Models, Sequences, Trained, log_probs, values
from salsa.ppo.resume import Checkpoints
from salsa.ppo.rollout import Prompt, Rollout, collect, prompt_batches
from salsa.ppo.samplers import Sampler
from salsa.runtime.errors import Interrupted, UserError
from salsa.runtime.log import steps
from salsa.runtime.seeds import derive_seed


def make_learner(trained: Trained, rate: float, settings: Ppo, updates: int) -> Learner:
    """The Learner for how the run was launched."""
    if processes.accelerator().distributed_type != DistributedType.DEEPSPEED:
        return Learner(trained, rate, settings, updates)
    from salsa.ppo.zero import ZeroLearner  # DeepSpeed is installed where it is used

    return ZeroLearner(trained, rate, settings, updates)


def update(
    models: Models, policy: Learner, value: Learner, rollout: Rollout, rows: list[int], settings: Ppo
) -> Metrics:
    """One optimiser step of both models on the responses `rows`; each loss is a mean over their tokens.

    Each process takes its share of the rows. First the one model, then the other: so only one's gradients exist at a
    time.
    """
    pad = models.tokenizer.pad_token_id
    prompts, responses = [prompt.ids for prompt in rollout.prompts], [answer.token_ids for answer in rollout.answers]
    count = sum(len(responses[row]) for row in rows)
    own = [rows[place] for place in processes.dealt([len(prompts[row]) + len(responses[row]) for row in rows])]
    size = settings.micro_batch_size or len(own)
    batches = [own[begin : begin + size] for begin in range(0, len(own), size)]

    def policy_figures(sequences: Sequences, of: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        old = of(rollout.log_probs)
        new = models.policy.ask(lambda model: log_probs(model, sequences, settings.temperature))
        losses, clipped = policy_losses(new, old, of(rollout.advantages), settings.clip)
        return {"loss_policy": losses, "clip_fraction_policy": clipped, "approx_kl": k3(old, new)}

    def value_figures(sequences: Sequences, of: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        new = models.value.ask(lambda model: values(model, sequences, models.normalisation))
        losses, clipped = value_losses(new, of(rollout.values), of(rollout.returns), settings.value_clip)
        return {"loss_value": losses, "clip_fraction_value": clipped}

    metrics: Metrics = {}
    for name, trained, figures in (("policy", policy, policy_figures), ("value", value, value_figures)):
        sums: dict[str, Tensor] = {}
        for batch in batches:
            sequences = Sequences.of([prompts[i] for i in batch], [responses[i] for i in batch], pad)
            of = partial(tokens_of, chosen=batch, mask=rollout.mask[batch], device=sequences.ids.device)
            with trained.micro_batch(last=batch is batches[-1]):
                found = figures(sequences, of)
                # The mean of the processes' gradients is that of their losses: each counts for the whole.
                trained.backward(found[f"loss_{name}"].sum() / count * processes.count())
            for key, figure in found.items():
                sums[key] = sums.get(key, 0.0) + figure.detach().float().sum()
        totals = processes.total({key: figure.item() for key, figure in sums.items()})
        metrics |= {key: figure / count for key, figure in totals.items()}
        metrics[f"grad_norm_{name}"] = trained.clip()
        if names := not_finite(metrics):
            raise UserError(
                f"{' and '.join(names)} not finite: lower ppo.learning_rate and ppo.value_learning_rate, or use "
                "dtype float32"
            )
        trained.step()
    return metrics


def tokens_of(figures: Tensor, chosen: list[int], mask: Tensor, device: torch.device) -> Tensor:
    """Of figures [B, T], those [N] of the chosen rows' real tokens."""
    return figures[chosen][mask].to(device)


def not_finite(metrics: Metrics) -> list[str]:
    """The figures that are not finite."""
    return [name for name, figure in metrics.items() if isinstance(figure, float) and not math.isfinite(figure)]


class Training:
    """A run's models, optimisers, and the draws that are still to come.

    No seed here depends on the method: arms of one RL seed meet the same prompts with the same random numbers.
    """

    def __init__(
        self,
        models: Models,
        sampler: Sampler,
        prompts: Sequence[Prompt],
        settings: Ppo,
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
                f"ppo.train_batch_size: {settings.train_batch_size} is no multiple of the {processes.count()} "
                "processes: change the one or the other"
            )
        self.models, self.sampler, self.settings, self.gold, self.derived = models, sampler, settings, gold, derived
        self.batches = prompt_batches(prompts, settings.rollout_batch_size, generator("prompts"))
        self.shuffles = generator("minibatches")
        updates = settings.steps * settings.epochs * (settings.rollout_batch_size // settings.train_batch_size)
        self.policy = make_learner(models.policy, settings.learning_rate, settings, updates)
        self.value = make_learner(models.value, settings.value_learning_rate, settings, updates)

    def orders(self) -> list[list[int]]:
        """The order of the rollout's responses in each of its epochs."""
        size = self.settings.rollout_batch_size
        return [torch.randperm(size, generator=self.shuffles).tolist() for _ in range(self.settings.epochs)]

    def step(self, step: int) -> Metrics:
        """A rollout and the updates on it; a UserError where it cannot go on, then without the update at fault."""
        settings, asked = self.settings, next(self.batches)
        draws = [self.derived("sampling", step, i) for i in range(len(asked))]
        rollout = collect(self.models, self.sampler, asked, settings, draws)
        metrics = rollout_metrics(rollout, self.models, settings.beta, self.gold)
        check_rollout(rollout, metrics, settings)
        rate, found = self.policy.rate(), []
        for order in self.orders():
            for begin in range(0, len(order), settings.train_batch_size):
                rows = order[begin : begin + settings.train_batch_size]
                found.append(update(self.models, self.policy, self.value, rollout, rows, settings))
                self.models.after_step(self.policy.steps)
        episodes = (step + 1) * settings.rollout_batch_size
        return {"step": step, "episodes": episodes, **metrics, **mean_of(found), "learning_rate": rate}

    def state(self) -> dict[str, Any]:
        """All that steps change, but for the draws."""
        moving = enumerate(self.models.references) if self.models.strategy.moves else ()
        return {
            "policy": self.policy.state(),
            "value": self.value.state(),
            "references": {str(number): reference.kept.state_dict() for number, reference in moving if reference.kept},
        }

    def restore(self, state: dict[str, Any], steps: int) -> None:
        """Takes up a `state` after `steps` steps, whose tensors are those in use; takes the draws that those took."""
        self.policy.restore(state["policy"])
        self.value.restore(state["value"])
        for _ in range(steps):
            next(self.batches)
            self.orders()


def train(
    training: Training,
    checkpoints: Checkpoints | None = None,
    report: Callable[[Metrics], None] = lambda metrics: None,
    stop_asked: Callable[[], bool] = lambda: False,
) -> list[Metrics]:
    """Trains in place, on from the newest of the checkpoints; returns each step's metrics, and reports them."""
    history: list[Metrics] = []
    if checkpoints is not None:
        state, history = checkpoints.load(training.state)
        if state is not None:
            training.restore(state, len(history))
    total, begun = training.settings.steps, len(history)
    shown = ("reward", "kl_ref_k1", "length", "eos_share")
    for step in steps(range(total), "ppo", lambda: {key: history[-1][key] for key in shown if history}, begun):
        try:
            history.append(training.step(step))
        except UserError as error:
            kept = f"; what was saved stays in {checkpoints.folder}" if checkpoints and checkpoints.newest() else ""
            raise UserError(f"ppo: step {step}: {error}{kept}") from None
        report(history[-1])
        if checkpoints is not None:
            checkpoints.append(history[-1])
            stopping = processes.any_says(stop_asked()) and step + 1 < total
            if stopping or checkpoints.due():
                checkpoints.save(step + 1, training.state(), history)
            if stopping:
                raise Interrupted(
                    f"ppo: stopped after {step + 1} steps, as SIGTERM asked; the same command goes on from "
                    f"{checkpoints.path(step + 1)}"
                )
    return history
