"""Engines that answer prompts: transformers (every device, and the reference), vLLM (for throughput).

Token ids in, token ids out: templates and texts are the caller's. Sampling is pure (no top-k, top-p or penalties);
temperature 0 takes the most probable token. Adding an engine is one class and one line in `load_engine`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from transformers import AutoConfig, PreTrainedTokenizerBase

from eval.generation.partial import Kept
from salsa.checkpoints.floats import check_checkpoint
from salsa.checkpoints.shards import read_json
from salsa.config.sections import GenerateSettings
from salsa.models.sampling import Answer
from salsa.runtime.errors import UserError
from salsa.runtime.log import steps


class Engine(Protocol):
    """`at_once` is how many prompts `generate` is best given."""

    at_once: int

    def swap(self, path: Path, eos: Sequence[int]) -> None:
        """Answers with another checkpoint of the same model from now on, and ends with these tokens."""
        ...

    def generate(
        self, prompts: Sequence[list[int]], temperatures: Sequence[float], max_new_tokens: int, seeds: Sequence[int]
    ) -> list[Answer]:
        """One answer a prompt, in the prompts' order; an answer depends on its own prompt, temperature and seed."""
        ...


def generate_all(
    engine: Engine,
    prompts: Sequence[list[int]],
    temperatures: Sequence[float],
    max_new_tokens: int,
    seeds: Sequence[int],
    kept: Kept | None = None,
) -> list[Answer]:
    """What `Engine.generate` gives, of any number of prompts, in batches of similar length; `kept` ones are not asked
    again. The longest go first, so that a lack of memory shows at once."""
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    batches = [order[i : i + engine.at_once] for i in range(0, len(order), engine.at_once)]
    answers: dict[int, Answer] = {}
    for batch in steps(batches, "generating", lambda: {"answers": len(answers)}):
        names = [seeds[i] for i in batch]
        found = kept.get(names) if kept else None
        if found is None:
            found = engine.generate(
                [prompts[i] for i in batch], [temperatures[i] for i in batch], max_new_tokens, names
            )
            if kept:
                kept.add(names, found)
        answers.update(zip(batch, found, strict=True))
    return [answers[i] for i in range(len(prompts))]


def load_engine(path: Path, tokenizer: PreTrainedTokenizerBase, settings: GenerateSettings) -> Engine:
    """The engine that the settings name, with the checkpoint loaded. Each is imported only when it is asked for."""
    if settings.engine == "vllm":
        check_checkpoint(path)  # vLLM loads whatever is there
        from salsa.models.vllm_engine import VllmEngine

        return VllmEngine(path, eos_ids(path, tokenizer), settings.dtype, settings.vllm)
    from eval.generation.transformers_engine import TransformersEngine
    from salsa.checkpoints.loading import load_causal

    return TransformersEngine(
        load_causal(path, settings.dtype), eos_ids(path, tokenizer), tokenizer.pad_token_id, settings.batch_size
    )


def eos_ids(path: Path, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens that end a response: the tokenizer's EOS, and those of the checkpoint's generation config."""
    file = path / "generation_config.json"
    listed = read_json(file).get("eos_token_id") if file.exists() else None
    more = listed if isinstance(listed, list) else [listed]
    return sorted({token for token in [tokenizer.eos_token_id, *more] if token is not None})


def context_length(path: Path, settings: GenerateSettings | None = None) -> int:
    """How many tokens, prompt and response together, the checkpoint's positions and the engine's settings allow."""
    config = AutoConfig.from_pretrained(path, trust_remote_code=False, local_files_only=True)
    length = getattr(config.get_text_config(), "max_position_embeddings", None)
    if length is None:
        raise UserError(f"{path / 'config.json'}: no max_position_embeddings: add the model's context length")
    limit = settings.vllm.get("max_model_len") if settings and settings.engine == "vllm" else None
    # vLLM also takes texts, such as auto, for what the model allows.
    return min(int(length), limit) if isinstance(limit, int) and limit > 0 else int(length)
