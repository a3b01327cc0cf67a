"""Memory of models in bytes, by the formula of docs/benchmarks.md, from a model's shape."""

from dataclasses import dataclass

from eval.costs.assumed import Dtype, Shape
from salsa.config.sections import LayerSizes, Lora

BYTES = {"float32": 4, "bfloat16": 2}
PROCESS = 0.5e9  # bytes of a process, or of a device's context, before any model
LOGITS = 12  # bytes per logit: itself, its gradient, and copies in other dtypes
LOGITS_CHUNK = LOGITS * (1 << 25)  # bytes of logits that exist at a time without gradients (salsa/models/scoring.py)
VLLM_OVERHEAD = 3e9  # bytes of a vLLM engine beside weights and cache
ADAM = 12  # bytes per weight: itself and two moments, without its gradient
FOUR_BITS = 0.5 + 4 / 64  # bytes per weight in NF4: its bits, and a float32 for each block of 64


@dataclass(frozen=True)
class Phase:
    """What a job needs at once, in bytes.

    sharded: in total over all devices. per_device: on each device beside its shard. vllm_share: the share of each
    device's memory that vLLM takes in addition; vllm_least: the bytes that this share has to hold.
    """

    sharded: float
    per_device: float
    vllm_share: float = 0.0
    vllm_least: float = 0.0

    def on(self, count: int, device: float) -> float:
        """Bytes on each of `count` devices with `device` bytes of memory each."""
        return self.sharded / count + self.per_device + self.vllm_share * device


@dataclass(frozen=True)
class Memory:
    """A job's memory on its devices: the largest of phases that follow each other."""

    phases: tuple[Phase, ...]

    @staticmethod
    def of(sharded: float, per_device: float) -> "Memory":
        """A job with a single phase."""
        return Memory((Phase(sharded, per_device),))

    def then(self, *phases: Phase) -> "Memory":
        """The same job with further phases."""
        return Memory(self.phases + phases)

    def on(self, count: int, device: float) -> float:
        """Bytes on each of `count` devices with `device` bytes of memory each (0 for CPU cores)."""
        return max(phase.on(count, device) for phase in self.phases)

    def share_left(self, count: int, device: float, usable: float) -> float | None:
        """The share of a device's memory that is left for vLLM, if `usable` bytes of it may be used.

        None if vLLM needs more, or if a phase without vLLM does not fit.
        """
        sampling = [phase for phase in self.phases if phase.vllm_share]
        others = [phase.on(count, device) for phase in self.phases if not phase.vllm_share]
        if not sampling or max(others, default=0.0) > usable:
            return None
        left = min(usable - phase.sharded / count - phase.per_device for phase in sampling)
        return left / device if left >= max(phase.vllm_least for phase in sampling) else None

    def least_share(self, device: float) -> float | None:
        """The share that vLLM needs of a device with `device` bytes; None if it gets that."""
        if not device:
            return None
        needed = [phase.vllm_least / device for phase in self.phases if phase.vllm_least > phase.vllm_share * device]
        return max(needed, default=None)


def weights(shape: Shape, dtype: Dtype) -> float:
    """Bytes of a model's weights."""
    return BYTES[dtype] * shape.parameters


def cache(shape: Shape, dtype: Dtype, tokens: float) -> float:
    """Bytes of the keys and values of `tokens` tokens."""
    return BYTES[dtype] * shape.cached_numbers * tokens


def logits(shape: Shape, tokens: float) -> float:
    """Bytes of logits without gradients, which are computed in chunks."""
    return min(LOGITS_CHUNK, LOGITS * shape.vocabulary * tokens)


def layer_numbers(shape: LayerSizes) -> int:
    """Numbers per token that a layer keeps for the backward pass.

    9 of hidden_size (inputs, normalised and scaled outputs of both norms; queries; attention's output before and after
    its heads are joined), keys and values, and 4 of intermediate_size (gate, its SiLU, up, their product).
    """
    return 9 * shape.hidden_size + 2 * shape.head_size * shape.key_value_heads + 4 * shape.intermediate_size


def activations(shape: Shape, dtype: Dtype, tokens: float, layers: int = 1, checkpointed: bool = False) -> float:
    """Bytes of the activations of `tokens` tokens in `layers` layers; one layer for a pass without gradients.

    With checkpointing each layer keeps its input, and one layer at a time all that it computes.
    """
    width = layer_numbers(shape)
    numbers = layers * shape.hidden_size + width if checkpointed else layers * width
    # In bfloat16 passes the residual stream stays float32, so a number takes 3 bytes on average.
    return tokens * numbers * (4 if dtype == "float32" else 3)


def training(shape: Shape, dtype: Dtype, tokens: float, predicted: float, checkpointed: bool = False) -> Memory:
    """Memory of training with a micro-batch of `tokens` tokens, `predicted` of which have logits.

    Weights, gradients and moments are float32 and sharded, with copies of the weights in a narrower dtype. Activations
    and logits are per device.
    """
    copies = 0.0 if dtype == "float32" else weights(shape, dtype)
    kept = activations(shape, dtype, tokens, shape.layers, checkpointed)
    return Memory.of((ADAM + 4) * shape.parameters + copies, PROCESS + kept + LOGITS * shape.vocabulary * predicted)


def linear_sizes(shape: LayerSizes) -> dict[str, int]:
    """Inputs plus outputs of each of a layer's linear maps, by its name."""
    width, queries, keys = shape.hidden_size, shape.heads * shape.head_size, shape.key_value_heads * shape.head_size
    sizes = dict.fromkeys(("q_proj", "o_proj"), width + queries) | dict.fromkeys(("k_proj", "v_proj"), width + keys)
    return sizes | dict.fromkeys(("gate_proj", "up_proj", "down_proj"), width + shape.intermediate_size)


def adapter_parameters(shape: LayerSizes, settings: Lora) -> int:
    """Parameters of an adapter: A and B of each adapted linear map."""
    sizes = linear_sizes(shape)
    adapted = sizes if settings.targets == "all-linear" else settings.targets
    return shape.layers * settings.rank * sum(sizes[name] for name in adapted if name in sizes)


def frozen_base(shape: Shape, dtype: Dtype, settings: Lora) -> float:
    """Bytes of the frozen base of adapters; in 4 bits its layers are narrow, but not embedding and output layer."""
    if settings.bits is None:
        return weights(shape, dtype)
    return weights(shape, dtype) - (BYTES[dtype] - FOUR_BITS) * shape.layer_parameters


def adapter_training(
    shape: Shape, dtype: Dtype, settings: Lora, tokens: float, predicted: float, checkpointed: bool = False
) -> Memory:
    """Memory of training an adapter: as `training`, but only the adapter has gradients and moments, and no device
    shares the base with others."""
    kept = activations(shape, dtype, tokens, shape.layers, checkpointed) + LOGITS * shape.vocabulary * predicted
    adapter = (ADAM + 4) * adapter_parameters(shape, settings)
    return Memory.of(0, PROCESS + frozen_base(shape, dtype, settings) + adapter + kept)
