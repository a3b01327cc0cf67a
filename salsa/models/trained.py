"""A model in training: passes through the module that distributes it, and its complete weights."""

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from salsa.checkpoints.loading import autocast
from salsa.models.sharded import ForwardWrapper, gather_model, gather_tensor

T = TypeVar("T")


class Trained:
    """A trained model. A Learner distributes it over the processes."""

    def __init__(self, model: PreTrainedModel, dtype: str = "float32"):
        self.model, self.dtype = model, dtype
        self.module: torch.nn.Module = ForwardWrapper(model)
        self.is_sharded = False

    def replace_module(self, module: torch.nn.Module, is_sharded: bool) -> None:
        """Route all passes through `module`, the distributed version of the wrapper."""
        self.module, self.is_sharded = module, is_sharded

    def forward(self, fn: Callable[[PreTrainedModel], T]) -> T:
        """Return fn(model), computed in one pass. Every process has to call it."""

        def autocasting(model: PreTrainedModel) -> T:
            # Inside the module's forward, because DeepSpeed disables autocast around it.
            with autocast(self.dtype):
                return fn(model)

        return self.module(autocasting)

    def trainable(self) -> list[torch.nn.Parameter]:
        """The parameters that an optimiser changes."""
        return list(self.module.parameters())

    def parameters(self) -> Iterator[Tensor]:
        """Yield the complete parameters one at a time. Every process has to iterate."""
        return map(gather_tensor, self.model.parameters())

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Like `parameters`, with their names in a checkpoint."""
        return ((name, gather_tensor(parameter)) for name, parameter in self.model.named_parameters())

    @contextlib.contextmanager
    def complete(self, dtype: str) -> Iterator[PreTrainedModel]:
        """Yields the complete model on this device, in evaluation mode; a copy in `dtype` if it is sharded.

        In training mode, gradient checkpointing would disable the key-value cache that sampling needs.
        """
        if not self.is_sharded:
            was_training = self.model.training
            self.model.eval()
            try:
                yield self.model
            finally:
                self.model.train(was_training)
            return
        yield gather_model(self.model, AutoModelForCausalLM, dtype)
