"""A model in training: its optimiser, its learning rate's schedule, and all that a run needs to go on with it."""

import contextlib
from collections.abc import Mapping
from typing import Any

import torch
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_

from salsa.ppo import processes
from salsa.ppo.models import Trained, full
from salsa.sections import Ppo
from salsa.training import schedule


class Learner:
    """A model with its optimiser and the factor on its learning rate, shared by the run's processes."""

    def __init__(self, trained: Trained, rate: float, settings: Ppo, updates: int):
        self.limit = settings.max_grad_norm
        optimiser = torch.optim.AdamW(
            trained.module.parameters(),
            lr=rate,
            betas=settings.adam_betas,
            eps=settings.adam_eps,
            weight_decay=0.0,
            fused=True,  # without copies of all weights, and several times as fast on a CPU
        )
        trained.module, prepared = processes.accelerator().prepare(trained.module, optimiser)
        self.module, self.optimiser = trained.module, prepared.optimizer
        self.schedule = schedule(self.optimiser, settings.schedule, updates)

    @property
    def steps(self) -> int:
        """The updates so far."""
        return int(self.schedule.last_epoch)

    def rate(self) -> float:
        return float(self.schedule.get_last_lr()[0])

    def micro_batch(self, last: bool) -> contextlib.AbstractContextManager:
        """Around a micro-batch's pass and its backward pass; with the `last`, gradients become the processes' mean."""
        # Under FSDP to wait for the last would mean to hold the whole model's gradients.
        if isinstance(self.module, DistributedDataParallel) and not last:
            return self.module.no_sync()
        return contextlib.nullcontext()

    def clip(self) -> float:
        """Scales the gradients gathered down to the limit; returns their norm before."""
        return full(clip_grad_norm_(self.module.parameters(), self.limit)).item()

    def step(self) -> None:
        """One update from the gradients gathered."""
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.schedule.step()

    def state(self) -> dict[str, Any]:
        """Weights, moments and schedule, as tensors and plain values; the tensors are those in use."""
        weights, moments = get_state_dict(self.module, self.optimiser)
        return {"model": weights, "optimiser": moments, "schedule": self.schedule.state_dict()}

    def restore(self, state: Mapping[str, Any]) -> None:
        weights, moments = state["model"], state["optimiser"]
        set_state_dict(self.module, self.optimiser, model_state_dict=weights, optim_state_dict=moments)
        self.schedule.load_state_dict(state["schedule"])
