"""Variable-length attention over packed sequences (no padding).

Registered with transformers under NAME. With `lengths`, a pass over [1, N] packed tokens lets each sequence attend only
to itself, causally and within the layer's sliding window. Without `lengths` it is transformers' `sdpa` (generation).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from salsa.runtime.errors import UserError

NAME = "sdpa_by_sequence"


def window_mask(length: int, window: int, device: torch.device) -> Tensor:
    """Causal sliding-window mask [length, length]: a position attends to itself and the window - 1 before it."""
    ones = torch.ones(length, length, dtype=torch.bool, device=device)
    return ones.tril().triu(1 - window)


def attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    lengths: Sequence[int] | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface: query [1, H, N, d], key and value [1, H', N, d]; returns [1, N, H, d]."""
    if softcap is not None:
        raise UserError("attention with logit softcapping (Gemma 2) is not supported: use another base model")
    if lengths is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **options)
    pieces = []
    for q, k, v in zip(*(part.split(list(lengths), 2) for part in (query, key, value)), strict=True):
        narrow = sliding_window is not None and q.shape[2] > sliding_window
        mask = window_mask(q.shape[2], sliding_window, q.device) if narrow and sliding_window is not None else None
        grouped = k.shape[1] != q.shape[1]
        pieces.append(
            scaled_dot_product_attention(
                q, k, v, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=grouped
            )
        )
    return torch.cat(pieces, 2).transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)


def hidden_states(model: PreTrainedModel, ids: Tensor, positions: Tensor, lengths: Sequence[int]) -> Tensor:
    """Last-layer hidden states [N, D] of packed sequences: token ids [N], positions [N], and each sequence's length."""
    if model.config._attn_implementation != NAME:
        model.set_attn_implementation(NAME)
    # transformers passes a 4-dimensional mask through, so no [N, N] mask is built.
    no_mask = torch.empty(1, 1, 0, 0, device=ids.device)
    output = model.base_model(
        input_ids=ids[None], position_ids=positions[None], attention_mask=no_mask, lengths=lengths, use_cache=False
    )
    return output.last_hidden_state[0]
