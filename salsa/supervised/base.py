"""Stage `base`: make a base checkpoint. Pretrain a mini model, or adopt one from the hub or from a local folder.

Mini models are ordinary transformers checkpoints of the real architectures, only smaller.
"""

import argparse
import itertools
import math
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    GemmaConfig,
    GemmaForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from salsa.checkpoints.adopt import from_folder, from_hub
from salsa.checkpoints.loading import device, load_tokenizer
from salsa.checkpoints.saving import save
from salsa.config.fields import Section
from salsa.config.sections import Base, Model, WorldModel
from salsa.models.training import pooled_batches, schedule
from salsa.runtime.errors import UserError
from salsa.runtime.jsonl import read_jsonl
from salsa.runtime.log import log, steps
from salsa.runtime.outputs import output_folder
from salsa.runtime.provenance import Run
from salsa.runtime.seeds import derive_seed
from salsa.runtime.settings import load_settings

WEIGHT_DECAY = 0.01
WARMUP_RATIO = 0.05
ADAM_BETAS = (0.9, 0.95)
# At transformers' default of 0.02 such narrow models, Gemma above all, need several times the steps to learn to copy.
INITIAL_STD = 0.06
IGNORED = -100  # label that transformers' loss ignores
Document = tuple[torch.Tensor, torch.Tensor]


class BaseSettings(Section):
    """The part of the config that this stage uses: the model, and how mini models are pretrained."""

    model: Model
    base: Base | None = None


def build(model: WorldModel, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """A model of this architecture with random weights from torch's global generator."""
    common: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": model.hidden_size,
        "intermediate_size": model.intermediate_size,
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.key_value_heads,
        "head_dim": model.head_size,
        "max_position_embeddings": model.max_positions,
        "initializer_range": INITIAL_STD,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    if model.architecture == "llama":
        return LlamaForCausalLM(LlamaConfig(**common))
    if model.architecture == "mistral":
        return MistralForCausalLM(MistralConfig(**common, sliding_window=model.sliding_window))
    return GemmaForCausalLM(GemmaConfig(**common, tie_word_embeddings=True))


def documents(rows: list[dict[str, Any]], tokenizer: PreTrainedTokenizerBase) -> list[Document]:
    """Token ids of each row's turns as plain text, with a mask that is True at answers and EOS.

    Prompts consist of random words; training to predict them would teach nothing and dominate the gradient.
    """
    result = []
    for row in rows:
        ids, mask = [tokenizer.bos_token_id], [False]
        for turn in row["turns"]:
            prompt, answer = (tokenizer(turn[key], add_special_tokens=False).input_ids for key in ("prompt", "answer"))
            ids += [*prompt, *answer]
            mask += [False] * len(prompt) + [True] * len(answer)
        result.append((torch.tensor([*ids, tokenizer.eos_token_id]), torch.tensor([*mask, True])))
    return result


def pretrain(
    model: PreTrainedModel, data: list[Document], settings: Base, pad: int, generator: torch.Generator
) -> float:
    """Train on the next token of answers. Returns the mean loss of the last tenth of steps, in nats per token."""
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, betas=ADAM_BETAS, weight_decay=WEIGHT_DECAY, fused=True
    )
    lengths = [len(ids) for ids, _ in data]
    whole = math.ceil(settings.epochs)
    passes = [pooled_batches(lengths, settings.batch_size, generator) for _ in range(whole)]
    order = list(itertools.chain.from_iterable(passes))
    order = order[: max(1, round(len(order) * settings.epochs / whole))]
    rate = schedule(optimiser, "cosine", len(order), WARMUP_RATIO)
    model.train()
    losses: list[float] = []
    for batch in steps(order, "pretraining", lambda: {"loss": losses[-1]} if losses else {}):
        rows = [data[i] for i in batch]
        ids = pad_sequence([ids for ids, _ in rows], batch_first=True, padding_value=pad)
        learned = pad_sequence([mask for _, mask in rows], batch_first=True, padding_value=False)
        labels = torch.where(learned, ids, IGNORED)
        # Padding is on the right, where no real token attends to it, so no attention mask is needed.
        loss = model(input_ids=ids.to(model.device), labels=labels.to(model.device), use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        rate.step()
        losses.append(loss.item())
    tail = losses[-max(1, len(losses) // 10) :]
    return sum(tail) / len(tail)


def pretrained(model: WorldModel, base: Base, world: Path, seed: int, name: str, out: Path, record: Run) -> None:
    """Pretrain a mini model and write it with the mini world's tokenizer."""
    tokenizer = load_tokenizer(world / "tokenizer")
    torch.manual_seed(derive_seed(seed, "base", name, "weights"))
    network = build(model, tokenizer).to(device())
    data = documents(read_jsonl(world / "pretrain.jsonl"), tokenizer)
    tokens = sum(len(ids) for ids, _ in data)
    generator = torch.Generator().manual_seed(derive_seed(seed, "base", name, "order"))
    loss = pretrain(network, data, base, tokenizer.pad_token_id, generator)
    log.info("base %s: %d parameters, %d tokens, final loss %.3f", name, network.num_parameters(), tokens, loss)
    record.extra = {"parameters": network.num_parameters(), "tokens": tokens, "final_loss": round(loss, 4)}
    with output_folder(out, record) as folder:
        save(network, tokenizer, folder, "float32")


def run(arguments: argparse.Namespace) -> None:
    settings = load_settings(arguments.settings, BaseSettings)
    inputs = {"world": arguments.world} if arguments.world else {}
    if settings.model.local is not None:
        inputs["checkpoint"] = Path(settings.model.local.path)
    record = Run("base", settings.model_dump(), inputs, {"seed": arguments.seed})
    if settings.model.hub is not None:
        record.extra = {"revision": settings.model.hub.revision}
        from_hub(settings.model.hub, arguments.out, record)
        return
    if settings.model.local is not None:
        from_folder(settings.model.local, arguments.out, record)
        return
    if arguments.world is None or settings.base is None or settings.model.world is None:
        raise UserError(f"base {arguments.model}: a mini model needs --world and the section base")
    pretrained(
        settings.model.world, settings.base, arguments.world, arguments.seed, arguments.model, arguments.out, record
    )
