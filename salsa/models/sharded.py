"""Gather sharded tensors and models (FSDP, DeepSpeed) on every process. All processes have to call these functions."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from salsa.checkpoints.loading import DTYPES, device

T = TypeVar("T")


class ForwardWrapper(torch.nn.Module):
    """A module whose forward pass calls a given function of the model.

    DDP and FSDP hook into a module's forward, so every pass of a distributed model has to go through one. PPO never
    builds the logits of a whole batch, so it cannot use the model's own forward.
    """

    def __init__(self, model: torch.nn.Module):
        super().__init__()
        self.model = model
        self.config = getattr(model, "config", None)
        self._no_split_modules = getattr(model, "_no_split_modules", None)

    def forward(self, fn: Callable[[torch.nn.Module], T]) -> T:
        return fn(self.model)


def gather_tensor(tensor: Tensor) -> Tensor:
    """The complete tensor, gathered if it is sharded."""
    if isinstance(tensor, DTensor):
        return tensor.full_tensor()
    if hasattr(tensor, "ds_id"):
        from deepspeed.runtime.zero import GatheredParameters  # an optional dependency

        with GatheredParameters([tensor]):
            return tensor.detach().clone()
    return tensor


def is_sharded(model: torch.nn.Module) -> bool:
    """Whether any parameter is sharded."""
    return any(isinstance(parameter, DTensor) or hasattr(parameter, "ds_id") for parameter in model.parameters())


def gather_model(model: PreTrainedModel, auto: Any, dtype: str) -> PreTrainedModel:
    """A complete copy in `dtype` on this process's device, in evaluation mode. `auto` is the model's Auto class."""
    with torch.device("meta"):
        copy = auto.from_config(model.config, dtype=DTYPES[dtype])
    copy = copy.to_empty(device=device()).requires_grad_(False).eval()
    copy.tie_weights()
    source = dict(model.named_buffers()) | dict(model.named_parameters())
    with torch.no_grad():
        for name, tensor in (dict(copy.named_buffers()) | dict(copy.named_parameters())).items():
            tensor.copy_(gather_tensor(source[name]))
    return copy
