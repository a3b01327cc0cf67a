"""Bytes that models take: docs/benchmarks.md's formula, by a model's shape."""

from dataclasses import dataclass

from eval.planning.assumed import Dtype, Shape
from salsa.config.sections import LayerSizes

BYTES = {"float32": 4, "bfloat16": 2}
PROCESS = 0.5e9  # of a process, or of a device's context, before any model
LOGITS = 12  # of a logit and its gradient, with their copies in other types
CHUNK_OF_LOGITS = 1e9
ADAM = 12  # of a weight with its two moments; its gradient comes to them


@dataclass(frozen=True)
class Memory:
    """Bytes of devices' memory: what they hold in shards together, and what each holds with it; what each holds whole
    before or after that; and the share of each device's that vLLM sets aside beside them."""

    shared: float
    each: float
    aside: float = 0.0
    whole: float = 0.0

    def on(self, count: int) -> float:
        """Of each of `count` devices, beside what is set aside."""
        return max(self.shared / count + self.each, self.whole)


def weights(shape: Shape, dtype: Dtype) -> float:
    """Of a model."""
    return BYTES[dtype] * shape.parameters


def cache(shape: Shape, dtype: Dtype, tokens: float) -> float:
    """Of keys and values."""
    return BYTES[dtype] * shape.cached_numbers * tokens


def logits(shape: Shape, tokens: float) -> float:
    """Of logits without gradients, which are made of a part of the tokens at a time."""
    return min(CHUNK_OF_LOGITS, LOGITS * shape.vocabulary * tokens)


def layer_numbers(shape: LayerSizes) -> int:
    """Numbers that a layer keeps of a token for the backward pass.

    9 of the model's width (both norms' inputs, normalised and scaled outputs, the queries, attention's output as it is
    and regrouped), keys and values, and 4 of the MLP's width (gate, its SiLU, up, their product).
    """
    return 9 * shape.hidden_size + 2 * shape.head_size * shape.key_value_heads + 4 * shape.intermediate_size


def activations(shape: Shape, dtype: Dtype, tokens: float, layers: int = 1, checkpointed: bool = False) -> float:
    """Of so many layers, kept of a micro-batch for its backward pass; of a forward pass alone, one layer's.

    Checkpointed, a layer keeps its input, and one of them all it computes.
    """
    width = layer_numbers(shape)
    each = layers * shape.hidden_size + width if checkpointed else layers * width
    # The residual stream stays float32 where passes compute in a narrower type.
    return tokens * each * (4 if dtype == "float32" else 3)


def training(shape: Shape, dtype: Dtype, tokens: float, predicted: float, checkpointed: bool = False) -> Memory:
    """Weights, gradients and moments in float32, copies of weights in a narrower type, and of the fullest micro-batch
    the activations of its tokens and the logits of those predicted."""
    copies = 0.0 if dtype == "float32" else weights(shape, dtype)
    kept = activations(shape, dtype, tokens, shape.layers, checkpointed)
    return Memory((ADAM + 4) * shape.parameters + copies, PROCESS + kept + LOGITS * shape.vocabulary * predicted)
