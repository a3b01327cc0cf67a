"""Frozen models, and where their weights stay between uses: on the device, in shards, on the host, or on disk.

The place changes memory and time, not results.
"""

from collections.abc import Callable
from typing import Protocol, TypeVar

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import PreTrainedModel

from salsa.checkpoints.loading import device
from salsa.config.sections import FrozenPlace
from salsa.devices import processes
from salsa.models.sharded import ForwardWrapper
from salsa.runtime.errors import UserError

T = TypeVar("T")
Load = Callable[[torch.device], PreTrainedModel]


class Frozen(Protocol):
    """A frozen model."""

    def forward(self, fn: Callable[[PreTrainedModel], T]) -> T:
        """Return fn(model), computed on this process's device. All processes have to call it."""
        ...


class FrozenOnDevice:
    """A model that stays on the device."""

    def __init__(self, model: PreTrainedModel):
        self.model = model

    def forward(self, fn: Callable[[PreTrainedModel], T]) -> T:
        return fn(self.model)


class FrozenSharded:
    """A model of which each process keeps a shard on its device. Each layer is gathered for its own passes."""

    def __init__(self, model: PreTrainedModel):
        mesh = init_device_mesh(device().type, (processes.count(),))
        for module in list(model.modules()):
            if type(module).__name__ in set(model._no_split_modules or ()):
                fully_shard(module, mesh=mesh)
        self.call: torch.nn.Module = ForwardWrapper(model)
        fully_shard(self.call, mesh=mesh, reshard_after_forward=True)

    def forward(self, fn: Callable[[PreTrainedModel], T]) -> T:
        return self.call(fn)


class FrozenOnHost:
    """A model that stays in the host's memory, pinned for a GPU, and is copied to the device for each use."""

    def __init__(self, model: PreTrainedModel):
        self.model, self.tensors = model, [*model.parameters(), *model.buffers()]
        if device().type == "cuda":
            for tensor in self.tensors:
                tensor.data = tensor.data.pin_memory()

    def forward(self, fn: Callable[[PreTrainedModel], T]) -> T:
        on_host = [tensor.data for tensor in self.tensors]
        try:
            for tensor in self.tensors:
                tensor.data = tensor.data.to(device(), non_blocking=True)
            return fn(self.model)
        finally:
            for tensor, data in zip(self.tensors, on_host, strict=True):
                tensor.data = data


class FrozenOnDisk:
    """A model that is loaded for each use."""

    def __init__(self, load: Callable[[], PreTrainedModel]):
        self.load = load

    def forward(self, fn: Callable[[PreTrainedModel], T]) -> T:
        return fn(self.load())


def load_frozen(load: Load, place: FrozenPlace) -> Frozen:
    """The frozen model that `load` returns, kept at a place. `auto` is in shards under FSDP2, else on the device."""
    sharding = processes.use_fsdp2()
    if place == "shards" and not sharding:
        raise UserError(
            "ppo.frozen_models: shards: these processes do not shard models: launch them with "
            "profiles/accelerate/fsdp2.yaml, or set it to host"
        )
    match place:
        case "disk":
            return FrozenOnDisk(lambda: load(device()))
        case "host":
            return FrozenOnHost(load(torch.device("cpu")))
        case "shards" | "auto" if sharding:
            return FrozenSharded(load(device()))
    return FrozenOnDevice(load(device()))
