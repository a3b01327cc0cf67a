"""Extension of vLLM's worker: load new weights into a running engine, and draw tokens with given random numbers.

vLLM mixes this class into its worker (`worker_extension_cls`), in the worker's process.
"""

import contextlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from salsa.checkpoints.adapters import merged_tensors

NUMBER = "salsa_number"  # extra argument of a request: its place in the call


class Extension:
    """Methods for `LLM.collective_rpc`. After new weights the caller has to reset the prefix cache of the old ones."""

    def begin_draws(self, seeds: Sequence[int], temperatures: Sequence[float], max_new_tokens: int) -> None:
        """Set the random numbers and temperatures of the next requests (`Draws.begin`)."""
        # With a custom processor vLLM makes the host wait for the value of each token. Draws needs only their number.
        worker: Any = self
        worker.model_runner.input_batch.logitsprocs_need_output_token_ids = False
        self._draws().begin(seeds, temperatures, max_new_tokens)

    def drawn_log_probs(self) -> list[list[float]]:
        """Log-probabilities of the tokens drawn since `begin_draws`: a row per request, as long as an answer can be."""
        return self._draws().log_probs.tolist()

    def _draws(self) -> Any:
        from salsa.models.vllm_draws import Draws

        worker: Any = self
        return next(part for part in worker.model_runner.input_batch.logitsprocs.all if isinstance(part, Draws))

    def clear_cache(self) -> None:
        """Set the keys and values to 0, as at the start. After a sleep they hold anything, NaN included."""
        worker: Any = self
        for tensor in worker.model_runner.kv_caches:
            tensor.zero_()

    def weights_from_folder(self, path: str) -> None:
        """Load a checkpoint with the same shapes, or an adapter of one."""
        self._reload(merged_tensors(Path(path)))

    def weights_from_tensors(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Load all tensors of a checkpoint, by name; only for a worker in the caller's process."""
        self._reload(weights)

    def _reload(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

        worker: Any = self
        with quiet_about(names_without_weights(worker.get_model())):
            worker.reload_weights(weights_iterator=weights)
        # A head tied to the embedding receives no weights, so on a CPU vLLM 0.31 would keep using the matrix that it
        # packed from the old ones.
        for module in worker.get_model().modules():
            if isinstance(module, ParallelLMHead):
                module.quant_method.process_weights_after_loading(module)


def names_without_weights(model: Any) -> set[str]:
    """Classes of the modules that a checkpoint has no weights for: those with buffers alone, and a tied head."""
    names = {type(module).__name__ for module in model.modules() if not list(module.parameters(recurse=False))}
    return names | ({"ParallelLMHead"} if model.config.tie_word_embeddings else set())


@contextlib.contextmanager
def quiet_about(names: set[str]) -> Iterator[None]:
    """Inside the context vLLM does not warn that modules of these classes got no weights."""

    def is_news(record: logging.LogRecord) -> bool:
        return "Failed to load weights" not in record.getMessage() or record.getMessage().split(":")[0] not in names

    vllm = logging.getLogger("vllm.model_executor.model_loader.reload.layerwise")
    vllm.addFilter(is_news)
    try:
        yield
    finally:
        vllm.removeFilter(is_news)
