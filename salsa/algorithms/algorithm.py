"""What the algorithms share: a micro-batch of responses, one optimiser step on some responses, and their interface."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import torch
from accelerate.utils import DistributedType
from torch import Tensor

from salsa.algorithms.learner import AdapterLearner, Learner
from salsa.config.algorithms import RlSettings
from salsa.devices import processes
from salsa.lora.shared import TrainedAdapter
from salsa.models.responses import Sequences, log_probs
from salsa.models.trained import Trained
from salsa.rollouts.experience import Experience
from salsa.rollouts.metrics import Metrics
from salsa.rollouts.models import Models
from salsa.runtime.errors import UserError

S = TypeVar("S", bound=RlSettings)
T = TypeVar("T")  # what an algorithm computes from a rollout before its updates, such as advantages
# The learning rate of each trained model, among the settings.
RATES = {"policy": "learning_rate", "value": "value_learning_rate"}
# A figure of a micro-batch: its summands, and what to divide the sum over all micro-batches by.
Share = tuple[Tensor, int]


@dataclass(frozen=True)
class MicroBatch:
    """Responses of a rollout that go through a model together: b rows, N real tokens in all."""

    rows: list[int]
    mask: Tensor  # [b, T]
    sequences: Sequences

    @staticmethod
    def of(experience: Experience, rows: list[int]) -> "MicroBatch":
        prompts, answers = experience.prompts, experience.answers
        sequences = Sequences.build([prompts[row].ids for row in rows], [answers[row].token_ids for row in rows])
        return MicroBatch(rows, experience.mask[rows], sequences)

    @property
    def lengths(self) -> Tensor:
        """Tokens of each response [b]."""
        return self.mask.sum(1).to(self.sequences.tokens.device)

    def of_tokens(self, figures: Tensor) -> Tensor:
        """The figures [N] of these responses' tokens, from those of the rollout [B, T]."""
        return figures[self.rows][self.mask].to(self.sequences.tokens.device)

    def of_responses(self, figures: Tensor) -> Tensor:
        """The figures [b] of these responses, from those of the rollout [B]."""
        return figures[self.rows].to(self.sequences.tokens.device)

    def at_tokens(self, figures: Tensor) -> Tensor:
        """A figure of each response [b] at each of its tokens [N]."""
        return figures.repeat_interleave(self.lengths)

    def sums(self, figures: Tensor) -> Tensor:
        """Sums [b] over the tokens of each response, of figures [N]."""
        return torch.stack([part.sum() for part in figures.split(self.mask.sum(1).tolist())])


class Algorithm(ABC, Generic[S, T]):
    """How a policy learns from a rollout. Each subclass is one algorithm.

    `name` is what the config calls it. `learners` are the trained models by name, with their optimisers; one is
    "policy".
    """

    name: ClassVar[str]

    def __init__(self, models: Models, settings: S):
        self.models, self.settings = models, settings
        self.learners = {"policy": make_learner(models.policy, settings.learning_rate, settings)}

    @property
    def policy(self) -> Learner:
        return self.learners["policy"]

    def log_probs(self, batch: MicroBatch) -> Tensor:
        """Log-probabilities [N] of the responses by the policy as it is now."""
        temperature = self.settings.temperature
        return self.models.policy.forward(lambda model: log_probs(model, batch.sequences, temperature))

    @abstractmethod
    def targets(self, experience: Experience) -> tuple[T, Metrics]:
        """What stays fixed over the updates on a rollout, and metrics of it. Called without gradients."""

    @abstractmethod
    def update(self, experience: Experience, targets: T, rows: list[int]) -> Metrics:
        """One optimiser step of each learner on the responses `rows`. Each process handles its share of them."""


def make_learner(trained: Trained, rate: float, settings: RlSettings) -> Learner:
    """A Learner for the way the run was launched."""
    if isinstance(trained, TrainedAdapter):
        return AdapterLearner(trained, rate, settings)
    if processes.accelerator().distributed_type != DistributedType.DEEPSPEED:
        return Learner(trained, rate, settings)
    from salsa.algorithms.zero import ZeroLearner  # needs DeepSpeed, an optional dependency

    return ZeroLearner(trained, rate, settings)


def optimise(
    learner: Learner,
    name: str,
    experience: Experience,
    rows: list[int],
    settings: RlSettings,
    figures: Callable[[MicroBatch], dict[str, Share]],
) -> Metrics:
    """One optimiser step of the model `name` on the responses `rows`, which lowers the figure loss_NAME.

    Returns all figures. Each is the mean over these responses or over their tokens, whichever process handled them.
    """
    lengths = [len(experience.prompts[row].ids) + len(experience.answers[row].token_ids) for row in rows]
    parts = processes.balanced_batches(lengths, settings.micro_batch_size, settings.micro_batch_tokens)
    sums: dict[str, Any] = {}
    counts: dict[str, int] = {}
    for part in parts:
        batch = MicroBatch.of(experience, [rows[place] for place in part])
        with learner.micro_batch(last=part is parts[-1]):
            shares = figures(batch)
            summands, count = shares[f"loss_{name}"]
            # Gradients are averaged over processes, so the sum over local responses is scaled up by their number.
            learner.backward(summands.sum() / count * processes.count())
        for key, (summands, count) in shares.items():
            sums[key] = sums.get(key, 0.0) + summands.detach().float().sum()
            counts[key] = count
    totals = processes.sum_over_processes({key: total.item() for key, total in sums.items()})
    metrics: Metrics = {key: total / counts[key] for key, total in totals.items()}
    metrics[f"grad_norm_{name}"] = learner.clip()
    if names := not_finite(metrics):
        raise UserError(f"{' and '.join(names)} not finite: lower ppo.{RATES[name]}, or set dtype float32")
    learner.step()
    return metrics


def not_finite(metrics: Metrics) -> list[str]:
    """Names of metrics that are NaN or infinite."""
    return [name for name, figure in metrics.items() if isinstance(figure, float) and not math.isfinite(figure)]
