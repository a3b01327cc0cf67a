"""Several checkpoints on one base in memory: each is an adapter, which is active while the checkpoint is used."""

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from salsa.checkpoints.adapters import base_of, read_adapter
from salsa.checkpoints.loading import autocast
from salsa.checkpoints.shards import is_adapter, read_tensors
from salsa.lora.layers import activate, insert, merged_weights, parameters_of, unchanged
from salsa.models.trained import Trained

T = TypeVar("T")
HEAD = "score.weight"


class FrozenAdapter:
    """A frozen checkpoint: adapters on a base that other models use, too (see `Frozen`)."""

    def __init__(self, model: PreTrainedModel, adapters: Sequence[str], dtype: str):
        self.model, self.adapters, self.dtype = model, adapters, dtype

    def forward(self, fn: Callable[[PreTrainedModel], T]) -> T:
        # Autocast as for the trained adapter, so that equal adapters give equal results.
        with unchanged(self.model), autocast(self.dtype):
            activate(self.model, self.adapters)
            return fn(self.model)


class TrainedAdapter(Trained):
    """A trained adapter over frozen ones, on a base that other models use, too. A reward model's head trains with it.

    A pass has to be followed by its backward pass before another model on the base is used.
    """

    def __init__(self, model: PreTrainedModel, dtype: str, adapters: Sequence[str], trained: str):
        super().__init__(model, dtype)
        self.adapters, self.trained = adapters, trained

    def activate(self) -> None:
        activate(self.model, self.adapters, self.trained)

    def trainable(self) -> list[torch.nn.Parameter]:
        head = [self.model.score.weight] if hasattr(self.model, "score") else []
        return [*parameters_of(self.model, self.trained), *head]

    def forward(self, fn: Callable[[PreTrainedModel], T]) -> T:
        self.activate()
        return super().forward(fn)

    def parameters(self) -> Iterator[Tensor]:
        return (weight for _, weight in self.weights())

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        self.activate()
        return merged_weights(self.model)

    @contextlib.contextmanager
    def complete(self, dtype: str) -> Iterator[PreTrainedModel]:
        """Yields the base with the model's adapters active, in evaluation mode."""
        self.activate()
        with super().complete(dtype) as model:
            yield model


class SharedBase:
    """A base model, on which checkpoints are adapters."""

    def __init__(self, model: PreTrainedModel, dtype: str):
        self.model, self.dtype = model, dtype
        self.folder = base_of(Path(model.name_or_path))
        self.names: dict[Path, list[str]] = {}

    def has(self, checkpoint: Path) -> bool:
        """Whether the checkpoint is an adapter of this base, or this base."""
        return base_of(checkpoint) == self.folder

    def adapters_of(self, checkpoint: Path) -> list[str]:
        """Names of a checkpoint's adapters, inserted at the first call; none for the base itself."""
        path = checkpoint.resolve()
        if path not in self.names:
            pairs = read_adapter(path).pairs
            self.names[path] = [f"checkpoint-{len(self.names)}"] if pairs else []
            if pairs:
                insert(self.model, self.names[path][0], pairs)
        return self.names[path]

    def frozen(self, checkpoint: Path) -> FrozenAdapter:
        """A checkpoint, frozen."""
        return FrozenAdapter(self.model, self.adapters_of(checkpoint), self.dtype)

    def scorer(self, checkpoint: Path) -> PreTrainedModel:
        """A model with the base's decoder and the checkpoint's head, or a random one if it has none.

        It is the caller's task to activate the checkpoint's adapters.
        """
        return with_head(self.model, head_of(checkpoint))


def with_head(base: PreTrainedModel, head: Tensor | None) -> PreTrainedModel:
    """A model that shares the base's decoder and has the head [1, D] in float32; None: a random one."""
    config = copy.deepcopy(base.config)
    config.num_labels = 1
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(config)
    setattr(model, model.base_model_prefix, base.base_model)
    place = next(base.parameters()).device
    model.score = torch.nn.Linear(config.hidden_size, 1, bias=False, device=place)
    if head is not None:
        model.score.weight.data.copy_(head)
    return model.eval()


def head_of(checkpoint: Path) -> Tensor | None:
    """The head of a reward model; None for a language model."""
    if is_adapter(checkpoint):
        return read_adapter(checkpoint).tensors.get(HEAD)
    if (place := read_tensors(checkpoint).get(HEAD)) is None:
        return None
    with safe_open(place.file, "pt") as tensors:
        return tensors.get_tensor(HEAD)
