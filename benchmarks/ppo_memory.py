"""The formula of docs/benchmarks.md for the peak memory of a PPO update in float32, without gradient checkpointing."""

from collections.abc import Sequence

from ppo_shapes import Shape, work

FLOAT32 = 4
ADAM = 3 * FLOAT32  # a weight and its two moments


def layer_activations(sizes: dict[str, int]) -> int:
    """Numbers that a layer keeps of a token for the backward pass.

    9 of the model's width (both norms' inputs, normalised and scaled outputs, the queries, attention's output as it is
    and regrouped), keys and values, and 4 of the MLP's width (gate, its SiLU, up, their product).
    """
    width = sizes["hidden_size"]
    head = sizes.get("head_dim", width // sizes["num_attention_heads"])
    return 9 * width + 2 * head * sizes["num_key_value_heads"] + 4 * sizes["intermediate_size"]


def largest_micro_batch(lengths: Sequence[tuple[int, int]], micro: int) -> tuple[int, int]:
    """Tokens and response tokens of the fullest micro-batch of a batch of (prompt, response) lengths."""
    longest = sorted(lengths, key=lambda pair: -sum(pair))[:micro]
    return sum(map(sum, longest)), sum(response for _, response in longest)


def peak_bytes(shape: Shape, updates: int, micro: int, policy: int, value: int, frozen: Sequence[int]) -> int:
    """Peak of the trainer's tensors: `policy` and `value` parameters, `frozen` bytes of each model that is kept.

    Everything that lasts, and the policy's update at its fullest: its gradients, one micro-batch's activations, the
    logits of its responses with their gradient, and the output layer's gradient before it is added to the others.
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
