"""Work, and how long a device takes for it: counted operations and bytes over what a device gives of either.

All of it is arithmetic on shapes, rows and tokens. Parallel devices each take their share of the rows.
"""

from dataclasses import dataclass, field, replace
from typing import Self

from eval.planning.assumed import Device, Dtype, Engine, Shape
from eval.planning.memory import BYTES, Memory

GIGABYTE = 1e9
# A backward pass computes twice what a forward pass does; a checkpointed one the forward pass again.
FORWARD, TRAINING, CHECKPOINTED = 1, 3, 4
# Adam reads a weight, its gradient and two moments, and writes all but the gradient; and the gradient is set to zero.
ADAM_BYTES = 32
# Of transformers' cache: each step copies it to be one token longer.
CACHE_COPIES = 3


@dataclass(frozen=True)
class Passes:
    """`tokens` go through the layers in `batches`, each attending to `context` others on average; `predicted` of them
    through the output layer as well. `factor` is FORWARD, TRAINING or CHECKPOINTED."""

    shape: Shape
    dtype: Dtype
    tokens: float
    context: float
    predicted: float
    batches: float
    factor: int = FORWARD
    updates: float = 0  # optimiser steps

    def operations(self) -> float:
        """Floating-point operations: two for a weight and token, and attention's own."""
        s = self.shape
        attention = 4 * s.layers * s.heads * s.head_size * self.context * self.tokens
        layers = 2 * s.layer_parameters * self.tokens
        return self.factor * (layers + attention + 2 * s.vocabulary_parameters * self.predicted)

    def seconds(self, device: Device, count: int) -> float:
        computing = self.operations() / (device.peak[self.dtype] * device.efficiency)
        launching = self.batches * self.factor * self.shape.layers * device.layer_seconds["transformers"]
        updating = self.updates * ADAM_BYTES * self.shape.parameters / device.bytes
        # Every device updates what it holds: all of it under DDP, its shard under FSDP.
        return (computing + launching) / count + updating


@dataclass(frozen=True)
class Decoding:
    """`rows` answers of `answer` tokens on average and `most` at most, `at_once` of them together, in `rounds` of which
    each waits for the one before."""

    shape: Shape
    dtype: Dtype
    engine: Engine
    rows: float
    at_once: float
    prompt: float
    answer: float
    most: float
    rounds: float = 1

    def seconds(self, device: Device, count: int) -> float:
        if not self.rows:
            return 0.0
        s, each = self.shape, self.rows / count
        rate, reading = device.peak[self.dtype] * device.efficiency, device.bytes * device.efficiency
        batches = self.rounds * max(1.0, each / self.rounds / self.at_once)
        # A batch runs until its longest answer has ended, and some answer nearly always reaches the limit; vLLM fills
        # up its batch with the next.
        filled = max(self.most * self.rounds, self.answer * batches)
        steps = self.most * batches if self.engine == "transformers" else filled
        alive = each * self.answer / steps
        context = self.prompt + self.answer / 2
        weights = BYTES[self.dtype] * (s.layer_parameters + s.vocabulary_parameters)
        copies = CACHE_COPIES if self.engine == "transformers" else 1
        cache = copies * BYTES[self.dtype] * s.cached_numbers * context * alive
        attention = 4 * s.layers * s.heads * s.head_size * context
        operations = alive * (2 * (s.layer_parameters + s.vocabulary_parameters) + attention)
        launching = s.layers * device.layer_seconds[self.engine]
        step = max(operations / rate, (weights + cache) / reading) + launching
        prompts = Passes(s, self.dtype, each * self.prompt, self.prompt / 2, each, batches)
        return prompts.seconds(device, 1) + steps * step


@dataclass(frozen=True)
class Waiting:
    """What takes as long on any device: imports, downloads, disks, a judge."""

    length: float

    def seconds(self, device: Device, count: int) -> float:
        return self.length


@dataclass(frozen=True)
class Starting:
    """A process that loads torch, or vLLM, and reads so many bytes of weights."""

    engine: Engine
    weights: float
    disk: float  # bytes a second

    def seconds(self, device: Device, count: int) -> float:
        return device.start_seconds[self.engine] + self.weights / self.disk


Work = Passes | Decoding | Waiting | Starting


@dataclass(frozen=True)
class Calls:
    """Of a judge, and their tokens."""

    number: float = 0
    asked: float = 0
    answered: float = 0

    def times(self, count: float) -> Self:
        return replace(self, number=self.number * count, asked=self.asked * count, answered=self.answered * count)


@dataclass(frozen=True)
class Cost:
    """Without `memory` a job takes no device. `spreads`: several devices can share it. Bytes on `disk` stay, those of
    `scratch` go when it ends."""

    work: tuple[Work, ...] = ()
    memory: Memory | None = None
    spreads: bool = False
    disk: float = 0.0
    scratch: float = 0.0
    calls: Calls = field(default_factory=Calls)
