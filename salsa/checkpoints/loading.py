"""Loading checkpoints the same way everywhere: local folders, safetensors, no remote code, one device.

Nothing is fetched from the hub here, and no code that lies beside the weights is ever run.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from salsa.checkpoints.shards import read_json, read_tensors
from salsa.runtime.errors import UserError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

transformers_logging.set_verbosity_error()
transformers_logging.disable_progress_bar()


def device() -> torch.device:
    """The device that models run on: this process's GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def open_tokenizer(path: Path) -> PreTrainedTokenizerBase:
    """A tokenizer that is the same again when it has been saved.

    transformers 5 forgets to save Llama's `legacy`, on which hangs whether a space comes before what follows a special
    token: Mistral-7B's own has it.
    """
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        path, trust_remote_code=False, local_files_only=True
    )
    if hasattr(tokenizer, "legacy"):
        tokenizer.init_kwargs["legacy"] = tokenizer.legacy
    return tokenizer


def load_tokenizer(path: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint; it must have a chat template and a pad token other than EOS."""
    if not (path / "tokenizer_config.json").is_file():
        raise UserError(
            f"{path}: no tokenizer_config.json there: run the stage that makes the checkpoint, or correct the path"
        )
    tokenizer = open_tokenizer(path)
    if tokenizer.chat_template is None:
        raise UserError(
            f"{path}: the tokenizer has no chat template: give the base model's chat_template in the config"
        )
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        raise UserError(
            f"{path}: the tokenizer needs a pad token other than EOS: give the base model's pad_token in the config"
        )
    return tokenizer


def check_vocabularies(tokenizer: PreTrainedTokenizerBase, others: Iterable[tuple[str, Path]]) -> None:
    """Tokens mean the same to all checkpoints of a run: others as (command-line option, folder)."""
    for option, folder in others:
        if load_tokenizer(folder).get_vocab() != tokenizer.get_vocab():
            raise UserError(
                f"{option} {folder}: its vocabulary differs from that of {tokenizer.name_or_path}: "
                "name checkpoints of one base"
            )


def load_causal(path: Path, dtype: str = "float32", place: torch.device | None = None) -> PreTrainedModel:
    """A language model in evaluation mode, at `place` or on `device()`."""
    return _load(AutoModelForCausalLM, path, dtype, place)


def load_reward(path: Path, dtype: str = "float32", place: torch.device | None = None) -> PreTrainedModel:
    """A reward or value model with one output, read at the last real token, in evaluation mode, placed like these."""
    return _load(AutoModelForSequenceClassification, path, dtype, place, num_labels=1)


def _load(auto: Any, path: Path, dtype: str, place: torch.device | None, **options: Any) -> PreTrainedModel:
    read_tensors(path)
    read_json(path / "config.json")
    try:
        model = auto.from_pretrained(
            path, dtype=DTYPES[dtype], trust_remote_code=False, use_safetensors=True, local_files_only=True, **options
        )
    except SafetensorError as error:
        raise UserError(f"{path}: its weights cannot be read ({error}): copy or make the checkpoint again") from None
    model = model.to(place or device()).eval()
    check_parameters(model, str(path), "the checkpoint is broken: make or copy it again")
    keep_token_ids(model)
    return model


def check_parameters(model: PreTrainedModel, where: str, fix: str) -> None:
    """A UserError that names the first parameter with a NaN or an infinity in it."""
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise UserError(f"{where}: parameter {name} holds NaN or infinity: {fix}")


def keep_token_ids(model: PreTrainedModel) -> None:
    """Reduces a model's generation config to its token ids: sampling follows our config.

    transformers refuses to save a generation config that contradicts itself, as Llama-2's and Vicuna's first ones did,
    and it would refuse after hours of training.
    """
    if getattr(model, "generation_config", None) is not None:
        said = model.generation_config.to_dict()
        model.generation_config = GenerationConfig(**{key: said[key] for key in said if key.endswith("_token_id")})


def render(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool = False
) -> list[int]:
    """The token ids of a conversation by the tokenizer's chat template, which alone writes the special tokens."""
    return render_all(tokenizer, [messages], add_generation_prompt)[0]


def render_all(
    tokenizer: PreTrainedTokenizerBase,
    dialogues: Sequence[Sequence[Mapping[str, str]]],
    add_generation_prompt: bool = False,
) -> list[list[int]]:
    """What `render` gives, of many conversations at once."""
    if not dialogues:
        return []
    plain = [[dict(message) for message in messages] for messages in dialogues]
    texts = tokenizer.apply_chat_template(plain, add_generation_prompt=add_generation_prompt, tokenize=False)
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=False).input_ids
    return ids
