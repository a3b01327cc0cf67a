"""Units of work and their time on a device: operations over its operations per second, bytes over its bandwidth.

All of it is arithmetic on shapes, rows and tokens. Several devices divide the rows equally.
"""

from dataclasses import dataclass, field, replace
from typing import Self

from eval.costs.assumed import Device, Dtype, Engine, Shape, Start, assumed
from eval.costs.memory import BYTES, VLLM_OVERHEAD, Memory, cache, weights

GIGABYTE = 1e9
# Operations in units of a forward pass: a backward pass takes two, and with checkpointing recomputes the forward pass.
FORWARD, TRAINING, CHECKPOINTED = 1, 3, 4
# Bytes moved per weight and step: Adam reads weight, gradient and two moments, writes all but the gradient, and zeroes
# the gradient.
ADAM_BYTES = 32
# transformers copies its cache at each step to append a token: one read, one write, and the read by attention.
CACHE_COPIES = 3


@dataclass(frozen=True)
class Passes:
    """Passes of `tokens` tokens through the layers, in `batches` batches.

    A token attends to `context` others on average. `predicted` tokens go through the output layer too. `factor` is
    FORWARD, TRAINING or CHECKPOINTED. `updates` counts the optimiser's steps.
    """

    shape: Shape
    dtype: Dtype
    tokens: float
    context: float
    predicted: float
    batches: float
    factor: int = FORWARD
    updates: float = 0

    def operations(self) -> float:
        """Floating-point operations: two per weight and token, and those of attention."""
        s = self.shape
        attention = 4 * s.layers * s.heads * s.head_size * self.context * self.tokens
        layers = 2 * s.layer_parameters * self.tokens
        return self.factor * (layers + attention + 2 * s.vocabulary_parameters * self.predicted)

    def seconds(self, device: Device, count: int) -> float:
        computing = self.operations() / (device.peak[self.dtype] * device.efficiency)
        launching = self.batches * self.factor * self.shape.layers * device.layer_seconds["transformers"]
        # A GPU computes while the host starts the next operations.
        passing = computing + launching if device.memory is None else max(computing, launching)
        devices = 1.0 if count == 1 else count * assumed().together
        # The same for any number of devices: under DDP each updates all weights (under FSDP its shard, so this is an
        # upper bound).
        updating = self.updates * ADAM_BYTES * self.shape.parameters / device.bytes
        return passing / devices + updating


@dataclass(frozen=True)
class Decoding:
    """Sampling of `rows` answers, `batch` at a time, in `rounds` that follow each other.

    `prompt` and `answer` are mean lengths in tokens; `limit` is the maximum length of an answer. `vllm_share` is the
    share of a device's memory that a vLLM engine takes; 0: enough for `batch` rows.
    """

    shape: Shape
    dtype: Dtype
    engine: Engine
    rows: float
    batch: float
    prompt: float
    answer: float
    limit: float
    rounds: float = 1
    vllm_share: float = 0.0

    def at_once(self, device: Device) -> float:
        """Rows that a device samples at a time: `batch`, or as many as vLLM's share of its memory holds."""
        if not self.vllm_share or device.memory is None:
            return self.batch
        free = self.vllm_share * device.memory * GIGABYTE - weights(self.shape, self.dtype) - VLLM_OVERHEAD
        return max(1.0, min(self.batch, free / cache(self.shape, self.dtype, self.prompt + self.answer)))

    def seconds(self, device: Device, count: int) -> float:
        if not self.rows:
            return 0.0
        s, rows = self.shape, self.rows / count
        rate, reading = device.peak[self.dtype] * device.efficiency, device.bytes * device.bandwidth_efficiency
        batches = self.rounds * max(1.0, rows / self.rounds / self.at_once(device))
        # A batch of transformers runs until its longest answer ends, which is nearly always the limit. vLLM replaces
        # each answer that ends by the next request.
        refilled = max(self.limit * self.rounds, self.answer * batches)
        steps = self.limit * batches if self.engine == "transformers" else refilled
        alive = rows * self.answer / steps
        context = self.prompt + self.answer / 2
        read = BYTES[self.dtype] * (s.layer_parameters + s.vocabulary_parameters)
        copies = CACHE_COPIES if self.engine == "transformers" else 1
        attended = copies * cache(s, self.dtype, context * alive)
        attention = 4 * s.layers * s.heads * s.head_size * context
        operations = alive * (2 * (s.layer_parameters + s.vocabulary_parameters) + attention)
        launching = s.layers * device.layer_seconds[self.engine]
        drawing = assumed().drawing_bytes_per_logit * alive * s.vocabulary / reading if self.engine == "vllm" else 0.0
        computing, loading = operations / rate, (read + attended) / reading
        # A GPU computes while it reads.
        step = computing + loading if device.memory is None else max(computing, loading)
        step += launching + drawing
        prompts = Passes(s, self.dtype, rows * self.prompt, self.prompt / 2, rows, batches)
        return prompts.seconds(device, 1) + steps * step


@dataclass(frozen=True)
class Waiting:
    """Time that does not depend on the device: imports, downloads, disks, a judge."""

    length: float  # seconds

    def seconds(self, device: Device, count: int) -> float:
        return self.length


@dataclass(frozen=True)
class Starting:
    """The start of a process that imports torch or vLLM, or is forked from one that did, and reads weights."""

    kind: Start
    weights: float  # bytes
    disk: float  # bytes per second

    def seconds(self, device: Device, count: int) -> float:
        return device.start_seconds[self.kind] + self.weights / self.disk


Work = Passes | Decoding | Waiting | Starting


@dataclass(frozen=True)
class Calls:
    """Calls of a judge, with the tokens of all prompts and of all replies."""

    number: float = 0
    prompt_tokens: float = 0
    reply_tokens: float = 0

    def times(self, count: float) -> Self:
        return replace(
            self,
            number=self.number * count,
            prompt_tokens=self.prompt_tokens * count,
            reply_tokens=self.reply_tokens * count,
        )


@dataclass(frozen=True)
class Cost:
    """The cost of a job.

    A job without `memory` takes no device. `spreads` says that several devices can share it. `disk` are the bytes of
    its outputs, `scratch` those of files that it removes when it ends.
    """

    work: tuple[Work, ...] = ()
    memory: Memory | None = None
    spreads: bool = False
    disk: float = 0.0
    scratch: float = 0.0
    calls: Calls = field(default_factory=Calls)
