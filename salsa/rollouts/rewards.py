"""What scores the responses of a rollout: a reward model, an ensemble, or any function (alignment/library.py)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from salsa.checkpoints.ensembles import Ensemble
from salsa.models.frozen import Frozen
from salsa.models.sampling import Answer
from salsa.models.scoring import rewards

Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Prompt:
    """A dialogue that ends with a user turn, and its token ids."""

    messages: Messages
    ids: list[int]


class Reward(Protocol):
    """Scores responses. The scores are the rewards to maximise, in the unit of `beta` and the EOS penalty."""

    def __call__(
        self, prompts: Sequence[Prompt], answers: Sequence[Answer], batches: Sequence[Sequence[int]]
    ) -> list[float]:
        """One score per response. Each process calls it for its share of a rollout.

        `batches` are the responses' indices, divided so that each part fits into a forward pass.
        """
        ...


class RewardModel:
    """A trained reward model: its score at the last token, normalised by `mean` and `std`."""

    def __init__(self, model: Frozen, mean: float, std: float):
        self.model, self.mean, self.std = model, mean, std

    def __call__(
        self, prompts: Sequence[Prompt], answers: Sequence[Answer], batches: Sequence[Sequence[int]]
    ) -> list[float]:
        sequences = [prompt.ids + answer.token_ids for prompt, answer in zip(prompts, answers, strict=True)]
        return self.model.forward(lambda model: rewards(model, sequences, batches, self.mean, self.std))


class EnsembleReward:
    """Several reward models, of whose scores an ensemble makes one."""

    def __init__(self, ensemble: Ensemble, models: Sequence[RewardModel]):
        self.ensemble, self.models = ensemble, models

    def __call__(
        self, prompts: Sequence[Prompt], answers: Sequence[Answer], batches: Sequence[Sequence[int]]
    ) -> list[float]:
        # One model after the other, so that at most one model that is not kept is in memory.
        return self.ensemble.scores([model(prompts, answers, batches) for model in self.models])
