"""Engines that answer prompts: transformers (every device, and the reference), vLLM (for throughput).

Token ids in, token ids out: templates and texts are the caller's. Sampling is pure (no top-k, top-p or penalties);
temperature 0 takes the most probable token. Adding an engine is one class and one line in `load_engine`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from transformers import AutoConfig, PreTrainedTokenizerBase

from salsa.errors import UserError
from salsa.sampling import Answer
from salsa.sections import GenerateSettings
from salsa.shards import read_json


class Engine(Protocol):
    def generate(
        self, prompts: Sequence[list[int]], temperatures: Sequence[float], max_new_tokens: int, seeds: Sequence[int]
    ) -> list[Answer]:
        """One answer a prompt, in the prompts' order; an answer depends on its own prompt, temperature and seed."""
        ...


def load_engine(path: Path, tokenizer: PreTrainedTokenizerBase, settings: GenerateSettings) -> Engine:
    """The engine that the settings name, with the checkpoint loaded. Each is imported only when it is asked for."""
    if settings.engine == "vllm":
        from eval.engines.vllm_engine import VllmEngine

        return VllmEngine(path, eos_ids(path, tokenizer), settings.dtype, settings.vllm)
    from eval.engines.transformers_engine import TransformersEngine
    from salsa.checkpoints import load_causal

    return TransformersEngine(
        load_causal(path, settings.dtype), eos_ids(path, tokenizer), tokenizer.pad_token_id, settings.batch_size
    )


def eos_ids(path: Path, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens that end a response: the tokenizer's EOS, and those of the checkpoint's generation config."""
    file = path / "generation_config.json"
    listed = read_json(file).get("eos_token_id") if file.exists() else None
    more = listed if isinstance(listed, list) else [listed]
    return sorted({token for token in [tokenizer.eos_token_id, *more] if token is not None})


def context_length(path: Path) -> int:
    """How many tokens, prompt and response together, the checkpoint's positions allow."""
    config = AutoConfig.from_pretrained(path, trust_remote_code=False, local_files_only=True)
    length = getattr(config.get_text_config(), "max_position_embeddings", None)
    if length is None:
        raise UserError(f"{path / 'config.json'}: no max_position_embeddings: add the model's context length")
    return int(length)
