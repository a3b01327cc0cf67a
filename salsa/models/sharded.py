"""Models that several processes hold in shards: a tensor or a model made whole on each. All processes have to call."""

from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from salsa.checkpoints.loading import DTYPES, device


def full(tensor: Tensor) -> Tensor:
    """All of a tensor that may be in shards, FSDP's or DeepSpeed's."""
    if isinstance(tensor, DTensor):
        return tensor.full_tensor()
    if hasattr(tensor, "ds_id"):
        from deepspeed.runtime.zero import GatheredParameters  # DeepSpeed is installed where it is used

        with GatheredParameters([tensor]):
            return tensor.detach().clone()
    return tensor


def in_shards(model: torch.nn.Module) -> bool:
    return any(isinstance(parameter, DTensor) or hasattr(parameter, "ds_id") for parameter in model.parameters())


def whole_copy(model: PreTrainedModel, auto: Any, dtype: str) -> PreTrainedModel:
    """A copy in `dtype` with all weights on this process's device, in evaluation mode; `auto` is its Auto class."""
    with torch.device("meta"):
        copy = auto.from_config(model.config, dtype=DTYPES[dtype])
    copy = copy.to_empty(device=device()).requires_grad_(False).eval()
    copy.tie_weights()
    own = dict(model.named_buffers()) | dict(model.named_parameters())
    with torch.no_grad():
        for name, tensor in (dict(copy.named_buffers()) | dict(copy.named_parameters())).items():
            tensor.copy_(full(own[name]))
    return copy
