"""The formula of docs/benchmarks.md for the peak memory of a PPO update in float32, without gradient checkpointing."""

from collections.abc import Sequence

from ppo_shapes import Shape, work

from eval.costs.memory import layer_numbers
from salsa.config.sections import LayerSizes

FLOAT32 = 4
ADAM = 3 * FLOAT32  # a weight and its two moments


def layer_activations(sizes: dict[str, int]) -> int:
    """Numbers per token that a layer stores for the backward pass."""
    heads = sizes["num_attention_heads"]
    layer = LayerSizes(
        hidden_size=sizes["hidden_size"],
        intermediate_size=sizes["intermediate_size"],
        layers=sizes["num_hidden_layers"],
        heads=heads,
        key_value_heads=sizes["num_key_value_heads"],
        head_size=sizes.get("head_dim", sizes["hidden_size"] // heads),
    )
    return layer_numbers(layer)


def largest_micro_batch(lengths: Sequence[tuple[int, int]], micro: int) -> tuple[int, int]:
    """Tokens and response tokens of the largest micro-batch, for (prompt, response) lengths of a batch."""
    longest = sorted(lengths, key=lambda pair: -sum(pair))[:micro]
    return sum(map(sum, longest)), sum(response for _, response in longest)


def peak_bytes(shape: Shape, updates: int, micro: int, policy: int, value: int, frozen: Sequence[int]) -> int:
    """Peak of the trainer's tensors: `policy` and `value` parameters, and `frozen` bytes of each model in memory.

    The sum of everything that stays, and the largest step of the policy's update: its gradients, the activations of
    one micro-batch, the logits of its responses with their gradient, and the output layer's gradient before it is
    accumulated.
    """
    sizes = shape.sizes
    batches = [
        [(len(p), n) for p, n in zip(prompts, lengths, strict=True)] for prompts, lengths in work(shape, updates)
    ]
    tokens, responses = max(largest_micro_batch(batch, micro) for batch in batches)
    lasting = ADAM * (policy + value) + sum(frozen)
    activations = FLOAT32 * tokens * sizes["num_hidden_layers"] * layer_activations(sizes)
    logits = FLOAT32 * sizes["vocab_size"] * (2 * responses + sizes["hidden_size"])
    return lasting + FLOAT32 * policy + activations + logits
