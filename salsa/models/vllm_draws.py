"""The project's own draws inside vLLM (sampling.py), as a logits processor for all requests of a batch at once.

vLLM samples greedily: the processor draws, and raises the drawn token's logit above all others. So no seed goes to
vLLM, whose own seeded sampler draws one request after the other, and its answers are the transformers sampler's, up to
rounding in the model.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from vllm import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor, process_dict_updates

from salsa.models.sampling import choose, uniforms
from salsa.models.vllm_worker import NUMBER


class Draws(LogitsProcessor):
    """Draws the tokens of the requests 0, 1, …, n - 1, after `begin`."""

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool):
        self.device, self.pinned = device, is_pin_memory
        # By row of the batch: the request's number, and the list to which vLLM appends its tokens.
        self.rows: dict[int, tuple[int, list[int]]] = {}
        self.begin([], [], 0)

    def begin(self, seeds: Sequence[int], temperatures: Sequence[float], max_new_tokens: int) -> None:
        """Random numbers and temperatures of new requests; all that depends on them alone goes to the device once."""
        self.uniform = torch.empty(0, max_new_tokens) if not seeds else uniforms(seeds, max_new_tokens).to(self.device)
        self.temperatures = torch.tensor(temperatures, dtype=torch.float32, device=self.device)
        self.log_probs = torch.zeros(len(seeds), max_new_tokens, device=self.device)
        self.numbers: Tensor | None = None  # by row
        self.tokens: Sequence[list[int]] = ()

    def is_argmax_invariant(self) -> bool:
        """False: vLLM must not skip this processor for greedy requests."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follow the requests that enter, leave or move in the batch."""
        if process_dict_updates(self.rows, batch_update, lambda params, _, tokens: self._request(params, tokens)):
            self.numbers = None

    @staticmethod
    def _request(params: SamplingParams, tokens: list[int]) -> tuple[int, list[int]]:
        return (params.extra_args or {})[NUMBER], tokens

    def apply(self, logits: Tensor) -> Tensor:
        """Draw a token for each row of logits [B, V], and make it the largest; keep its log-probability."""
        if self.numbers is None:
            numbers, self.tokens = zip(*(self.rows[row] for row in range(len(logits))), strict=True)
            self.numbers = self._to_device(numbers)
        # vLLM may run a request that has ended once more; it drops the result.
        steps = self._to_device([len(tokens) for tokens in self.tokens]).clamp(max=self.uniform.shape[1] - 1)
        uniform, temperatures = self.uniform[self.numbers, steps], self.temperatures[self.numbers]
        drawn, self.log_probs[self.numbers, steps] = choose(logits, temperatures, uniform)
        return logits.scatter_(1, drawn[:, None], torch.inf)

    def _to_device(self, numbers: Sequence[int]) -> Tensor:
        return torch.tensor(numbers, pin_memory=self.pinned).to(self.device, non_blocking=True)
