"""Load checkpoints for training with LoRA, and save trained models."""

import copy
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from salsa.checkpoints.adapters import Adapter, base_of, read_adapter, write_adapter
from salsa.checkpoints.loading import DTYPES, check_parameters, device, keep_token_ids, load_base
from salsa.checkpoints.saving import save
from salsa.config.sections import Lora
from salsa.lora.layers import activate, active_pairs, insert, insert_new, lora_layers
from salsa.runtime.errors import UserError

START, TRAINED = "start", "trained"  # a model's adapters: its checkpoint's, and the new one


def quantisation(settings: Lora, dtype: str) -> Any:
    """transformers' settings for a base in 4 bits; None for one that is not quantised."""
    if settings.bits is None:
        return None
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"lora.bits: cannot import bitsandbytes ({error}): pip install .[quantised], or leave bits out"
        ) from None
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=DTYPES[dtype])


def load_frozen_base(auto: Any, checkpoint: Path, settings: Lora, dtype: str) -> PreTrainedModel:
    """Load a checkpoint's base on this process's device, frozen, in evaluation mode, in `dtype` or in 4 bits.

    A reward model (`auto`) gets a head of its own in float32, with random weights.
    """
    options = {"num_labels": 1} if auto is AutoModelForSequenceClassification else {}
    model = load_base(auto, checkpoint, dtype, quantisation(settings, dtype), **options)
    model = (model if settings.bits else model.to(device())).eval()
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            # On some CPUs bitsandbytes would otherwise put the weights into an order that it cannot read back.
            module.support_avx512bf16_for_cpu = False
    check_parameters(model, str(checkpoint), "the checkpoint is broken: rebuild it or copy it again")
    keep_token_ids(model)
    if options:
        model.score = torch.nn.Linear(model.config.hidden_size, 1, bias=False, device=device())
    return model.requires_grad_(False)


def load_for_training(auto: Any, checkpoint: Path, settings: Lora, dtype: str, seed: int) -> PreTrainedModel:
    """A checkpoint's model with a new adapter, of which alone, and of a reward model's head, the weights train."""
    model = load_frozen_base(auto, checkpoint, settings, dtype)
    if pairs := read_adapter(checkpoint).pairs:
        insert(model, START, pairs)
    insert_new(model, TRAINED, settings, seed)
    activate(model, [START, TRAINED], TRAINED)
    if auto is AutoModelForSequenceClassification:
        model.score.requires_grad_(True)
    model._hf_peft_config_loaded = True  # else transformers' Trainer refuses a base in 4 bits
    return model


def save_trained(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, dtype: str) -> None:
    """Write a trained model with its tokenizer: the active adapters as one adapter of the base, in float32.

    A model without adapters is written as an ordinary checkpoint in `dtype`. Raises a UserError, and saves nothing, if
    a weight is NaN or infinite.
    """
    if not lora_layers(model):
        save(model, tokenizer, folder, dtype)
        return
    check_parameters(model, "training diverged", "lower the learning rate or use a wider dtype; nothing was saved")
    pairs = {name: (a.cpu(), b.cpu()) for name, (a, b) in active_pairs(model).items()}
    head = {"score.weight": model.score.weight.detach().float().cpu()} if hasattr(model, "score") else {}
    write_adapter(Adapter(base_of(Path(model.name_or_path)), pairs, head), folder)
    config = copy.deepcopy(model.config)
    config.architectures = [type(model).__name__]
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.save_pretrained(folder)
    if model.can_generate():
        model.generation_config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
