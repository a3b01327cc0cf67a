"""A model in training: its optimiser, its learning rate's schedule, and all that a run needs to go on with it."""

import contextlib
from collections.abc import Mapping
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_

from salsa.config.sections import Ppo
from salsa.devices import processes
from salsa.models.sharded import full
from salsa.models.training import schedule
from salsa.ppo.models import Trained


class Learner:
    """A model with its optimiser and the factor on its learning rate, shared by the run's processes."""

    in_shards = False

    def __init__(self, trained: Trained, rate: float, settings: Ppo, updates: int):
        self.limit = settings.max_grad_norm
        self.optimiser = torch.optim.AdamW(
            trained.module.parameters(),
            lr=rate,
            betas=settings.adam_betas,
            eps=settings.adam_eps,
            weight_decay=0.0,
            fused=True,  # without copies of all weights, and several times as fast on a CPU
        )
        self.module = self.prepared(trained.module, processes.accelerator())
        trained.shared(self.module, self.in_shards or isinstance(self.module, FSDPModule))
        self.schedule = schedule(self.optimiser, settings.schedule, updates)

    def prepared(self, module: torch.nn.Module, accelerator: Accelerator) -> torch.nn.Module:
        """The module as the processes share it, and the optimiser's parameters with it."""
        shared, _ = accelerator.prepare(module, self.optimiser)
        return shared

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

    def backward(self, loss: Tensor) -> None:
        loss.backward()

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
