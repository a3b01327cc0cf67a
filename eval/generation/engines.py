"""Generation engines: transformers (any device; the reference) and vLLM (throughput).

Token ids in, token ids out; templates and text are up to the caller. Sampling uses no top-k, top-p or penalties;
temperature 0 is greedy. A new engine is one class and one line in `load_engine`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from transformers import AutoConfig, PreTrainedTokenizerBase

from eval.generation.partial import PartialAnswers
from salsa.checkpoints.adapters import base_of
from salsa.checkpoints.floats import check_checkpoint
from salsa.checkpoints.shards import read_json
from salsa.config.sections import GenerateSettings
from salsa.models.sampling import Answer
from salsa.runtime.errors import UserError
from salsa.runtime.log import steps


class Engine(Protocol):
    """Answers prompts with a checkpoint. `at_once` is the best number of prompts per call."""

    at_once: int

    def swap(self, path: Path, eos: Sequence[int]) -> None:
        """Load another checkpoint of the same model; `eos` are the tokens that end an answer."""
        ...

    def generate(
        self, prompts: Sequence[list[int]], temperatures: Sequence[float], max_new_tokens: int, seeds: Sequence[int]
    ) -> list[Answer]:
        """One answer per prompt, in order. An answer depends only on its own prompt, temperature and seed."""
        ...


def generate_all(
    engine: Engine,
    prompts: Sequence[list[int]],
    temperatures: Sequence[float],
    max_new_tokens: int,
    seeds: Sequence[int],
    partial: PartialAnswers | None = None,
) -> list[Answer]:
    """`Engine.generate` for any number of prompts, in batches of similar length; skips batches in `partial`.

    The longest prompts go first, so that a lack of memory shows at once.
    """
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    batches = [order[i : i + engine.at_once] for i in range(0, len(order), engine.at_once)]
    answers: dict[int, Answer] = {}
    for batch in steps(batches, "generating", lambda: {"answers": len(answers)}):
        batch_seeds = [seeds[i] for i in batch]
        generated = partial.get(batch_seeds) if partial else None
        if generated is None:
            generated = engine.generate(
                [prompts[i] for i in batch], [temperatures[i] for i in batch], max_new_tokens, batch_seeds
            )
            if partial:
                partial.add(batch_seeds, generated)
        answers.update(zip(batch, generated, strict=True))
    return [answers[i] for i in range(len(prompts))]


def load_engine(path: Path, tokenizer: PreTrainedTokenizerBase, settings: GenerateSettings) -> Engine:
    """Load the configured engine with a checkpoint. Engines are imported only when used."""
    if settings.engine == "vllm":
        check_checkpoint(base_of(path))  # vLLM would load NaN without complaint
        from salsa.models.vllm_engine import VllmEngine

        engine = VllmEngine(path, eos_ids(path, tokenizer), settings.dtype, settings.vllm)
        engine.swap(path, eos_ids(path, tokenizer))
        return engine
    from eval.generation.transformers_engine import TransformersEngine
    from salsa.checkpoints.loading import load_causal

    return TransformersEngine(
        load_causal(path, settings.dtype), eos_ids(path, tokenizer), tokenizer.pad_token_id, settings.batch_size
    )


def eos_ids(path: Path, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokens that end a response: the tokenizer's EOS and those in the checkpoint's generation config."""
    file = path / "generation_config.json"
    listed = read_json(file).get("eos_token_id") if file.exists() else None
    more = listed if isinstance(listed, list) else [listed]
    return sorted({token for token in [tokenizer.eos_token_id, *more] if token is not None})


def context_length(path: Path, settings: GenerateSettings | None = None) -> int:
    """Most tokens of prompt plus response, by the checkpoint's positions and the engine's settings."""
    config = AutoConfig.from_pretrained(path, trust_remote_code=False, local_files_only=True)
    length = getattr(config.get_text_config(), "max_position_embeddings", None)
    if length is None:
        raise UserError(f"{path / 'config.json'}: no max_position_embeddings: add the model's context length")
    limit = settings.vllm.get("max_model_len") if settings and settings.engine == "vllm" else None
    # vLLM also accepts texts such as "auto", meaning the model's own limit.
    return min(int(length), limit) if isinstance(limit, int) and limit > 0 else int(length)
