"""Load checkpoints and tokenizers: local folders, safetensors only, no remote code, one device.

A checkpoint that is an adapter is loaded as an ordinary model, with the changed weights.
"""

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from salsa.checkpoints.adapters import base_of, merged_tensors, read_adapter
from salsa.checkpoints.shards import is_adapter, read_json, read_tensors
from salsa.runtime.errors import UserError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

transformers_logging.set_verbosity_error()
transformers_logging.disable_progress_bar()


def device() -> torch.device:
    """This process's GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(dtype: str) -> contextlib.AbstractContextManager:
    """Autocast to bfloat16 over float32 weights, or do nothing for float32."""
    if dtype == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device().type, torch.bfloat16)


def open_tokenizer(path: Path) -> PreTrainedTokenizerBase:
    """Open a tokenizer so that saving it and loading it again changes nothing.

    transformers 5 does not save Llama's `legacy` flag (Mistral-7B sets it), which decides whether a space is added
    after a special token.
    """
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        path, trust_remote_code=False, local_files_only=True
    )
    if hasattr(tokenizer, "legacy"):
        tokenizer.init_kwargs["legacy"] = tokenizer.legacy
    return tokenizer


def load_tokenizer(path: Path) -> PreTrainedTokenizerBase:
    """Load a checkpoint's tokenizer. A UserError unless it has a chat template and a pad token other than EOS."""
    if not (path / "tokenizer_config.json").is_file():
        raise UserError(
            f"{path}: no tokenizer_config.json there: run the stage that makes the checkpoint, or correct the path"
        )
    tokenizer = open_tokenizer(path)
    if tokenizer.chat_template is None:
        raise UserError(f"{path}: the tokenizer has no chat template: set the base model's chat_template in the config")
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        raise UserError(
            f"{path}: the tokenizer needs a pad token other than EOS: set the base model's pad_token in the config"
        )
    return tokenizer


def check_vocabularies(tokenizer: PreTrainedTokenizerBase, others: Iterable[tuple[str, Path]]) -> None:
    """Raise a UserError unless all checkpoints share one vocabulary. `others` are (command-line option, folder)."""
    for option, folder in others:
        if load_tokenizer(folder).get_vocab() != tokenizer.get_vocab():
            raise UserError(
                f"{option} {folder}: its vocabulary differs from that of {tokenizer.name_or_path}: "
                "use checkpoints of one base model"
            )


def load_causal(path: Path, dtype: str = "float32", place: torch.device | None = None) -> PreTrainedModel:
    """Load a language model in evaluation mode, to `place` or `device()`."""
    return _load(AutoModelForCausalLM, path, dtype, place)


def load_reward(path: Path, dtype: str = "float32", place: torch.device | None = None) -> PreTrainedModel:
    """Load a reward or value model (one output per token) in evaluation mode, to `place` or `device()`."""
    return _load(AutoModelForSequenceClassification, path, dtype, place, num_labels=1)


def _load(auto: Any, path: Path, dtype: str, place: torch.device | None, **options: Any) -> PreTrainedModel:
    model = load_base(auto, path, dtype, **options)
    if is_adapter(path):
        adapter = read_adapter(path)
        changed = {f"{name}.weight" for name in adapter.pairs} | adapter.tensors.keys()
        with torch.no_grad():
            for name, tensor in merged_tensors(path, DTYPES[dtype]):
                if name in changed:
                    model.get_parameter(name).copy_(tensor)
    model = model.to(place or device()).eval()
    check_parameters(model, str(path), "the checkpoint is broken: rebuild it or copy it again")
    keep_token_ids(model)
    return model


def load_base(auto: Any, path: Path, dtype: str, quantised: Any = None, **options: Any) -> PreTrainedModel:
    """Load the base of a checkpoint, with the checkpoint's config; an ordinary checkpoint is its own base.

    `auto` is the model's Auto class, `quantised` a transformers quantisation config.
    """
    base = base_of(path)
    read_tensors(base)
    read_json(path / "config.json")
    config = AutoConfig.from_pretrained(path, trust_remote_code=False, local_files_only=True, **options)
    further = {} if quantised is None else {"quantization_config": quantised, "device_map": {"": device()}}
    try:
        return auto.from_pretrained(
            base,
            config=config,
            dtype=DTYPES[dtype],
            trust_remote_code=False,
            use_safetensors=True,
            local_files_only=True,
            **further,
        )
    except SafetensorError as error:
        raise UserError(f"{base}: cannot read the weights ({error}): rebuild the checkpoint or copy it again") from None


def check_parameters(model: PreTrainedModel, where: str, fix: str) -> None:
    """Raise a UserError that names the first parameter with a NaN or an infinity."""
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise UserError(f"{where}: parameter {name} holds NaN or infinity: {fix}")


def keep_token_ids(model: PreTrainedModel) -> None:
    """Reduce a model's generation config to token ids; sampling follows our config.

    transformers refuses to save inconsistent generation configs (Llama-2's and Vicuna's first ones), and would do so
    only after hours of training.
    """
    if getattr(model, "generation_config", None) is not None:
        settings = model.generation_config.to_dict()
        ids = {key: value for key, value in settings.items() if key.endswith("_token_id")}
        model.generation_config = GenerationConfig(**ids)


def render(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool = False
) -> list[int]:
    """Token ids of a dialogue by the chat template. Only the template adds special tokens."""
    return render_all(tokenizer, [messages], add_generation_prompt)[0]


def render_all(
    tokenizer: PreTrainedTokenizerBase,
    dialogues: Sequence[Sequence[Mapping[str, str]]],
    add_generation_prompt: bool = False,
) -> list[list[int]]:
    """`render` for many dialogues."""
    if not dialogues:
        return []
    plain = [[dict(message) for message in messages] for messages in dialogues]
    texts = tokenizer.apply_chat_template(plain, add_generation_prompt=add_generation_prompt, tokenize=False)
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=False).input_ids
    return ids
