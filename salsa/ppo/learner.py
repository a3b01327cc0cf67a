"""A model in training: its optimiser, its learning rate's schedule, and all that a run needs to go on with it."""

from collections.abc import Mapping
from typing import Any

import torch
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.nn.utils import clip_grad_norm_

from salsa.sections import Ppo
from salsa.training import schedule


class Learner:
    """A model with its optimiser and the factor on its learning rate."""

    def __init__(self, model: torch.nn.Module, rate: float, settings: Ppo, updates: int):
        self.model, self.limit = model, settings.max_grad_norm
        self.optimiser = torch.optim.AdamW(
            model.parameters(),
            lr=rate,
            betas=settings.adam_betas,
            eps=settings.adam_eps,
            weight_decay=0.0,
            fused=True,  # without copies of all weights, and several times as fast on a CPU
        )
        self.schedule = schedule(self.optimiser, settings.schedule, updates)

    @property
    def steps(self) -> int:
        """The updates so far."""
        return int(self.schedule.last_epoch)

    def rate(self) -> float:
        return float(self.schedule.get_last_lr()[0])

    def clip(self) -> float:
        """Scales the gradients gathered down to the limit; returns their norm before."""
        return clip_grad_norm_(self.model.parameters(), self.limit).item()

    def step(self) -> None:
        """One update from the gradients gathered."""
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.schedule.step()

    def state(self) -> dict[str, Any]:
        """Weights, moments and schedule, as tensors and plain values; the tensors are those in use."""
        weights, moments = get_state_dict(self.model, self.optimiser)
        return {"model": weights, "optimiser": moments, "schedule": self.schedule.state_dict()}

    def restore(self, state: Mapping[str, Any]) -> None:
        set_state_dict(self.model, self.optimiser, model_state_dict=state["model"], optim_state_dict=state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
