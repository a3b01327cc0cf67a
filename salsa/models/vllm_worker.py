"""What salsa adds to vLLM's workers: other weights for a running engine, from a folder or from tensors at hand.

vLLM mixes this class into its own worker (`worker_extension_cls`), in whatever process that runs.
"""

from collections.abc import Iterable
from typing import Any

from torch import Tensor


class Weights:
    """Methods for `LLM.collective_rpc`. The caller resets the prefix cache, which was computed with the old weights."""

    def weights_from_folder(self, path: str) -> None:
        """A checkpoint's, of the same shapes."""
        self._reload(weights_path=path)

    def weights_from_tensors(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """All of a checkpoint's, under its names; for a worker in the caller's process."""
        self._reload(weights_iterator=weights)

    def _reload(self, **source: Any) -> None:
        from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

        worker: Any = self
        worker.reload_weights(**source)
        # A head tied to the embedding gets no weights of its own, so that on a CPU vLLM 0.31 goes on with the matrix
        # that it once packed from the old ones.
        for module in worker.get_model().modules():
            if isinstance(module, ParallelLMHead):
                module.quant_method.process_weights_after_loading(module)
