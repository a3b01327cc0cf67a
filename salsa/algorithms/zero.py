"""A Learner under DeepSpeed's ZeRO-3, whose engine shards weights, gradients and Adam moments."""

import contextlib
from collections.abc import Mapping
from typing import Any, cast

import torch
from accelerate import Accelerator
from deepspeed.utils import (
    safe_get_local_fp32_param,
    safe_get_local_optimizer_state,
    safe_set_local_fp32_param,
    safe_set_local_optimizer_state,
)

from salsa.algorithms.learner import MOMENTS, Learner
from salsa.devices import processes


class ZeroLearner(Learner):
    """A Learner whose engine clips and steps by itself. Its state can be restored only with as many processes."""

    is_sharded = True

    def distribute(self, module: torch.nn.Module, accelerator: Accelerator) -> torch.nn.Module:
        config = accelerator.deepspeed_plugin.deepspeed_config
        # DeepSpeed uses the micro-batch size only in its logs.
        config |= {"gradient_clipping": self.limit, "train_micro_batch_size_per_gpu": 1}
        # Shard every parameter, however small, so that `restore` covers all of them.
        config["zero_optimization"]["stage3_param_persistence_threshold"] = 0
        self.engine = cast(Any, super().distribute(module, accelerator))
        processes.load_models_unsharded()
        for weights in self.engine.optimizer.fp32_partitioned_groups_flat:
            self.begin_moments(weights)
        return cast(torch.nn.Module, self.engine)

    def micro_batch(self, last: bool) -> contextlib.AbstractContextManager:
        self.engine.set_gradient_accumulation_boundary(last)
        return contextlib.nullcontext()

    def backward(self, loss: torch.Tensor) -> None:
        self.engine.backward(loss)

    def clip(self) -> float:
        """Clip and step, which the engine does together; returns the gradient norm."""
        self.engine.step()
        return float(self.engine.get_global_grad_norm())

    def step(self) -> None:
        self.schedule.step()

    def parts(self) -> dict[str, dict[str, torch.Tensor]]:
        """This process's shards of each parameter and its moments."""
        return {
            name: {"weight": safe_get_local_fp32_param(parameter)}
            | {moment: safe_get_local_optimizer_state(parameter, moment) for moment in MOMENTS}
            for name, parameter in self.engine.module.named_parameters()
        }

    def state(self) -> dict[str, Any]:
        return {processes.name(): self.parts(), "schedule": self.schedule.state_dict()}

    def restore(self, state: Mapping[str, Any]) -> None:
        for name, parameter in self.engine.module.named_parameters():
            part = state[processes.name()][name]
            safe_set_local_fp32_param(parameter, part["weight"])
            parameter.ds_tensor.data.copy_(part["weight"])  # the copy that forward passes use
            for moment in MOMENTS:
                safe_set_local_optimizer_state(parameter, part[moment], moment)
        self.set_steps(state["schedule"])
