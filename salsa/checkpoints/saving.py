"""Save trained models as ordinary checkpoints, and check before training that saving will work.

A policy may keep checkpoints that it passed on its way (`checkpoints_at`): POLICY/kept/STEPS.
"""

import shutil
import tempfile
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from salsa.checkpoints.loading import DTYPES, check_parameters
from salsa.runtime.errors import UserError

KEPT = "kept"


def check_saving(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, dtype: str) -> None:
    """Raise a UserError if `save` to this folder would fail after training. Tries everything but the weights."""
    # With LoRA only what trains is saved, beside small adapters.
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    needed = sum(parameter.numel() for parameter in trained) * DTYPES[dtype].itemsize
    if (free := shutil.disk_usage(folder).free) < needed:
        raise UserError(
            f"{folder.parent}: the trained model needs {needed / 1e9:.2g} GB, {free / 1e9:.2g} GB are free: make room"
        )
    try:
        with tempfile.TemporaryDirectory(dir=folder) as tried:
            model.config.save_pretrained(tried)
            if model.can_generate() and model.generation_config is not None:
                model.generation_config.save_pretrained(tried)
            tokenizer.save_pretrained(tried)
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"{model.name_or_path}: a model trained from it could not be saved ({str(error).splitlines()[0]}): "
            "fix the checkpoint's files first"
        ) from None


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, dtype: str) -> None:
    """Write safetensors in `dtype`, config and tokenizer with its chat template.

    Raises a UserError, and saves nothing, if a weight is NaN or infinite.
    """
    model = model.to(DTYPES[dtype])
    check_parameters(model, "training diverged", "lower the learning rate or use a wider dtype; nothing was saved")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def kept_checkpoints(policy: Path) -> dict[int, Path]:
    """Folders by the number of steps, ascending; none for a policy that kept nothing."""
    folders = (policy / KEPT).glob("*") if (policy / KEPT).is_dir() else ()
    return dict(sorted((int(folder.name), folder) for folder in folders if folder.name.isdecimal()))
