"""A base checkpoint with a hub model's shape and random weights, and rows of words for its tokenizer.

    python benchmarks/random_model.py --shape google/gemma-2b --out FOLDER [--layers 2]

It shows everything that depends only on sizes (seconds, memory, shards, loading) without the hub.
"""

import argparse
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GemmaConfig, LlamaConfig, MistralConfig, PreTrainedTokenizerFast

from eval.costs.assumed import assumed
from salsa.checkpoints.loading import device
from salsa.runtime.jsonl import write_jsonl
from salsa.world.tokenizer import train_tokenizer

CONFIGS = {
    "meta-llama/Llama-2-7b-hf": (LlamaConfig, {}),
    "mistralai/Mistral-7B-v0.1": (MistralConfig, {"sliding_window": 4096}),
    "google/gemma-2b": (GemmaConfig, {}),
    "HuggingFaceTB/SmolLM2-135M": (LlamaConfig, {}),
}
WORDS = [a + b + c for a in "bdfglmnprst" for b in "aeiou" for c in "lmnrst"]  # a token each


def config_of(name: str, layers: int | None = None) -> Any:
    """transformers' configuration of a hub model, with so many layers."""
    kind, own = CONFIGS[name]
    shape = assumed().models[name]
    return kind(
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=layers or shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        head_dim=shape.head_size,
        vocab_size=shape.vocabulary,
        tie_word_embeddings=shape.tied,
        max_position_embeddings=4096,
        **own,
    )


def with_tokens(config: Any, tokenizer: PreTrainedTokenizerFast) -> Any:
    """The configuration with this tokenizer's special tokens."""
    config.update({f"{token}_token_id": getattr(tokenizer, f"{token}_token_id") for token in ("bos", "eos", "pad")})
    return config


def tokenizer_of_words() -> PreTrainedTokenizerFast:
    return train_tokenizer([" ".join(WORDS)] * 4, 2048)


def text(draw: random.Random, tokens: int) -> str:
    return " ".join(draw.choices(WORDS, k=tokens))


def demonstrations(count: int, tokens: int) -> Iterator[dict[str, Any]]:
    """Dialogues of so many tokens in UltraChat's schema; half of the tokens are the answer's."""
    draw = random.Random(1)
    for i in range(count):
        prompt, answer = text(draw, tokens // 2), text(draw, tokens // 2)
        messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
        yield {"prompt_id": f"d{i}", "prompt": prompt, "messages": messages}


def preferences(count: int, tokens: int) -> Iterator[dict[str, Any]]:
    """Pairs of dialogues of so many tokens each in UltraFeedback's schema."""
    draw = random.Random(2)
    for i in range(count):
        prompt, *answers = (text(draw, tokens // 2) for _ in range(3))
        asked = {"role": "user", "content": prompt}
        better, worse = ([asked, {"role": "assistant", "content": answer}] for answer in answers)
        scores = {"score_chosen": 8.0, "score_rejected": 3.0}
        yield {"prompt_id": f"p{i}", "prompt": prompt, "chosen": better, "rejected": worse, **scores}


def questions(count: int, tokens: int) -> Iterator[dict[str, Any]]:
    """Questions of two turns in MT-Bench's schema."""
    draw = random.Random(3)
    for i in range(count):
        yield {"question_id": i + 1, "category": "writing", "turns": [text(draw, tokens) for _ in range(2)]}


def make(name: str, out: Path, layers: int | None = None, seed: int = 1) -> None:
    """Write bfloat16 weights and the tokenizer; the weights are drawn on the GPU if there is one."""
    tokenizer = tokenizer_of_words()
    config = with_tokens(config_of(name, layers), tokenizer)
    torch.manual_seed(seed)
    with torch.device(device()):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(out, max_shard_size="5GB")
    tokenizer.save_pretrained(out)


def write_rows(folder: Path, rows: int, tokens: int) -> None:
    """Write the stages' data: so many rows with dialogues of so many tokens, and prompts of a quarter of that."""
    folder.mkdir(parents=True, exist_ok=True)
    write_jsonl(folder / "sft.jsonl", demonstrations(rows, tokens))
    write_jsonl(folder / "prefs.jsonl", preferences(rows, tokens))
    prompts = ({key: row[key] for key in ("prompt_id", "prompt")} for row in preferences(rows, tokens // 2))
    write_jsonl(folder / "prompts.jsonl", prompts)
    write_jsonl(folder / "questions.jsonl", questions(max(4, rows // 8), tokens // 8))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=CONFIGS, required=True)
    parser.add_argument("--layers", type=int, help="number of layers (default: all)")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    make(arguments.shape, arguments.out, arguments.layers)
