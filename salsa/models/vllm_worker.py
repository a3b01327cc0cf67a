"""Extension of vLLM's worker: load new weights into a running engine, from a folder or from tensors.

vLLM mixes this class into its worker (`worker_extension_cls`), in the worker's process.
"""

from collections.abc import Iterable
from typing import Any

from torch import Tensor


class Weights:
    """Methods for `LLM.collective_rpc`. The caller has to reset the prefix cache, which the old weights filled."""

    def weights_from_folder(self, path: str) -> None:
        """Load a checkpoint with the same shapes."""
        self._reload(weights_path=path)

    def weights_from_tensors(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Load all tensors of a checkpoint, by name; only for a worker in the caller's process."""
        self._reload(weights_iterator=weights)

    def _reload(self, **source: Any) -> None:
        from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

        worker: Any = self
        worker.reload_weights(**source)
        # A head tied to the embedding receives no weights, so on a CPU vLLM 0.31 would keep using the matrix that it
        # packed from the old ones.
        for module in worker.get_model().modules():
            if isinstance(module, ParallelLMHead):
                module.quant_method.process_weights_after_loading(module)
