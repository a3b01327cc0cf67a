"""Variable-length attention over packed sequences (no padding).

Registered with transformers under NAME. With `packing`, a pass over [1, N] packed tokens lets each sequence attend only
to itself, causally and within the layer's sliding window. Without it, it is transformers' `sdpa` (generation).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

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


@dataclass(frozen=True)
class Packing:
    """Which of N packed tokens form a sequence. Sequences of one length share an attention call.

    `groups`: each length and how many sequences have it. `order` [N]: the tokens' places, with the sequences of a group
    next to each other; `inverse` [N] leads back. Both are None if the sequences stand like that already.
    """

    groups: tuple[tuple[int, int], ...]
    order: Tensor | None
    inverse: Tensor | None

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device) -> Self:
        """The packing of sequences of these lengths, one after the other."""
        rows: dict[int, list[int]] = {}
        for row, length in enumerate(lengths):
            rows.setdefault(length, []).append(row)
        groups = tuple((length, len(members)) for length, members in rows.items())
        by_group = [row for members in rows.values() for row in members]
        if by_group == sorted(by_group):
            return cls(groups, None, None)
        places = torch.arange(sum(lengths)).split(list(lengths))
        order = torch.cat([places[row] for row in by_group])
        return cls(groups, order.to(device), order.argsort().to(device))


def attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    packing: Packing | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface: query [1, H, N, d], key and value [1, H', N, d]; returns [1, N, H, d]."""
    if softcap is not None:
        raise UserError("attention with logit softcapping (Gemma 2) is not supported: use another base model")
    if packing is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **options)
    # Autocast would convert the parts one by one, each by an operation of its own.
    dtype = torch.get_autocast_dtype(query.device.type) if torch.is_autocast_enabled(query.device.type) else query.dtype
    parts = [part.squeeze(0).to(dtype) for part in (query, key, value)]
    if packing.order is not None:
        parts = [part.index_select(1, packing.order) for part in parts]
    sizes = [length * count for length, count in packing.groups]
    results = []
    for (length, count), *group in zip(packing.groups, *(part.split(sizes, 1) for part in parts), strict=True):
        q, k, v = (part.unflatten(1, (count, length)).transpose(0, 1) for part in group)
        mask = None
        if sliding_window is not None and length > sliding_window:
            mask = window_mask(length, sliding_window, q.device)
        result = scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=k.shape[1] != q.shape[1]
        )
        results.append(result.transpose(1, 2).flatten(0, 1))
    packed = torch.cat(results)
    return (packed if packing.inverse is None else packed.index_select(0, packing.inverse))[None], None


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)


@dataclass(frozen=True)
class Packed:
    """Sequences one after the other, without padding: token ids [N] and positions [N]."""

    ids: Tensor
    positions: Tensor
    lengths: tuple[int, ...]
    packing: Packing

    @classmethod
    def of(cls, sequences: Sequence[Sequence[int]], device: torch.device) -> Self:
        """Pack sequences of token ids."""
        lengths = tuple(map(len, sequences))
        ids = torch.tensor([token for sequence in sequences for token in sequence])
        positions = torch.cat([torch.arange(length) for length in lengths])
        return cls(ids.to(device), positions.to(device), lengths, Packing.of(lengths, device))

    def last(self) -> Tensor:
        """The place of each sequence's last token."""
        return torch.tensor(self.lengths).cumsum(0).to(self.ids.device) - 1


def hidden_states(model: PreTrainedModel, packed: Packed) -> Tensor:
    """Last-layer hidden states [N, D] of packed sequences."""
    if model.base_model.config._attn_implementation != NAME:
        model.base_model.set_attn_implementation(NAME)
    # transformers passes a 4-dimensional mask through, so no [N, N] mask is built.
    no_mask = torch.empty(1, 1, 0, 0, device=packed.ids.device)
    output = model.base_model(
        input_ids=packed.ids[None],
        position_ids=packed.positions[None],
        attention_mask=no_mask,
        packing=packed.packing,
        use_cache=False,
    )
    return output.last_hidden_state[0]
