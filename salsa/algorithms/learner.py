"""A trained model with its optimiser and learning-rate schedule, and their state for resuming."""

import contextlib
from collections.abc import Mapping
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import reduce
from torch import Tensor
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_

from salsa.config.algorithms import RlSettings
from salsa.devices import processes
from salsa.models.sharded import gather_tensor
from salsa.models.trained import Trained
from salsa.models.training import schedule

MOMENTS = ("exp_avg", "exp_avg_sq")  # Adam's names


class Learner:
    """Optimises one model, data-parallel over the run's processes.

    One update is: `micro_batch` with `backward` for each micro-batch, then `clip`, then `step`.
    """

    is_sharded = False

    def __init__(self, trained: Trained, rate: float, settings: RlSettings):
        self.limit = settings.max_grad_norm
        self.optimiser = torch.optim.AdamW(
            trained.trainable(),
            lr=rate,
            betas=settings.adam_betas,
            eps=settings.adam_eps,
            weight_decay=0.0,
            fused=True,  # no copies of all weights, and several times faster on a CPU
        )
        self.module = self.distribute(trained.module, processes.accelerator())
        trained.replace_module(self.module, self.is_sharded or isinstance(self.module, FSDPModule))
        self.schedule = schedule(self.optimiser, settings.schedule, settings.updates)

    def distribute(self, module: torch.nn.Module, accelerator: Accelerator) -> torch.nn.Module:
        """Wrap the module for all processes (DDP, FSDP), together with the optimiser's parameters."""
        wrapped, _ = accelerator.prepare(module, self.optimiser)
        return wrapped

    @property
    def steps(self) -> int:
        """Number of updates so far."""
        return int(self.schedule.last_epoch)

    def rate(self) -> float:
        """Current learning rate."""
        return float(self.schedule.get_last_lr()[0])

    def micro_batch(self, last: bool) -> contextlib.AbstractContextManager:
        """Wraps forward and backward of a micro-batch; on the `last` one gradients are averaged over processes."""
        # FSDP averages on every micro-batch: waiting for the last would keep gradients of the whole model.
        if isinstance(self.module, DistributedDataParallel) and not last:
            return self.module.no_sync()
        return contextlib.nullcontext()

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of `loss`."""
        loss.backward()

    def clip(self) -> float:
        """Clip the gradient norm; returns the norm before clipping."""
        return gather_tensor(clip_grad_norm_(self.module.parameters(), self.limit)).item()

    def step(self) -> None:
        """Update the weights from the accumulated gradients."""
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.schedule.step()

    def state(self) -> dict[str, Any]:
        """Weights, Adam moments and schedule. The tensors are the live ones, not copies."""
        weights, moments = get_state_dict(self.module, self.optimiser)
        return {"model": weights, "optimiser": moments, "schedule": self.schedule.state_dict()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore a `state`."""
        weights, moments = state["model"], state["optimiser"]
        set_state_dict(self.module, self.optimiser, model_state_dict=weights, optim_state_dict=moments)
        self.schedule.load_state_dict(state["schedule"])

    def set_steps(self, schedule: Mapping[str, Any]) -> None:
        """Restore the schedule's state, and with it Adam's count of steps and the learning rate."""
        self.schedule.load_state_dict(dict(schedule))
        for moments in self.optimiser.state.values():
            moments["step"].fill_(self.steps)
        for group, rate in zip(self.optimiser.param_groups, self.schedule.get_last_lr(), strict=True):
            group["lr"] = rate

    def begin_moments(self, weights: Tensor) -> None:
        """Set a parameter's moments to 0. Adam does so at its first step; a resumed run restores them before that."""
        zeros = {moment: torch.zeros_like(weights) for moment in MOMENTS}
        self.optimiser.state[weights] = {"step": torch.zeros((), device=weights.device), **zeros}


class AdapterLearner(Learner):
    """A Learner of an adapter. Each process holds the whole model and averages the gradients, which are small."""

    def __init__(self, trained: Trained, rate: float, settings: RlSettings):
        self.parameters = trained.trainable()
        super().__init__(trained, rate, settings)
        for parameter in self.parameters:
            self.begin_moments(parameter)

    def distribute(self, module: torch.nn.Module, accelerator: Accelerator) -> torch.nn.Module:
        return module

    def clip(self) -> float:
        if processes.count() > 1:
            gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
            mean = reduce(torch.cat([gradient.flatten() for gradient in gradients]), "mean")
            for gradient, part in zip(gradients, mean.split([one.numel() for one in gradients]), strict=True):
                gradient.copy_(part.view_as(gradient))
        return clip_grad_norm_(self.parameters, self.limit).item()

    def state(self) -> dict[str, Any]:
        """Weights of the adapter, their moments and the schedule. The tensors are the live ones, not copies."""
        parts = {
            str(number): {
                "weight": parameter.detach(),
                **{key: self.optimiser.state[parameter][key] for key in MOMENTS},
            }
            for number, parameter in enumerate(self.parameters)
        }
        return {"adapter": parts, "schedule": self.schedule.state_dict()}

    def restore(self, state: Mapping[str, Any]) -> None:
        for number, parameter in enumerate(self.parameters):
            part = state["adapter"][str(number)]
            parameter.data.copy_(part["weight"])
            for key in MOMENTS:
                self.optimiser.state[parameter][key].copy_(part[key])
        self.set_steps(state["schedule"])
