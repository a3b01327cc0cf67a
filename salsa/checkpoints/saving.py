"""Saving a trained model as an ordinary checkpoint, and whether that will work, before it is trained."""

import shutil
import tempfile
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from salsa.checkpoints.loading import DTYPES, check_parameters
from salsa.runtime.errors import UserError


def check_saving(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, dtype: str) -> None:
    """A UserError where `save` would fail in this folder once the model is trained: all but the weights is tried."""
    needed = sum(parameter.numel() for parameter in model.parameters()) * DTYPES[dtype].itemsize
    if (free := shutil.disk_usage(folder).free) < needed:
        raise UserError(
            f"{folder.parent}: the trained model takes {needed / 1e9:.2g} GB, and {free / 1e9:.2g} GB are free"
        )
    try:
        with tempfile.TemporaryDirectory(dir=folder) as tried:
            model.config.save_pretrained(tried)
            if model.can_generate() and model.generation_config is not None:
                model.generation_config.save_pretrained(tried)
            tokenizer.save_pretrained(tried)
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"{model.name_or_path}: what is trained from it could not be saved ({str(error).splitlines()[0]}): "
            "mend the checkpoint's files before it is trained"
        ) from None


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, dtype: str) -> None:
    """An ordinary checkpoint: safetensors in `dtype`, config, tokenizer with its chat template.

    A UserError where training has left no numbers; nothing is saved then.
    """
    model = model.to(DTYPES[dtype])
    check_parameters(model, "training has diverged", "lower the learning rate, or take a wider dtype; nothing is saved")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
