"""A checkpoint's model config, as vLLM reads it."""

import hashlib
import json
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from salsa.runtime.errors import UserError
from salsa.runtime.outputs import output_file

# The stored dtype does not matter, and special tokens are passed with each request.
IGNORED = {"_name_or_path", "transformers_version", "dtype", "eos_token_id", "pad_token_id", "bos_token_id"}


def model_config(path: Path) -> dict[str, Any]:
    """A checkpoint's config, without what may differ between checkpoints that one engine can load."""
    config = AutoConfig.from_pretrained(path, trust_remote_code=False, local_files_only=True).to_dict()
    return {key: value for key, value in config.items() if key not in IGNORED}


def check_same_model(path: Path, other: Path) -> None:
    """Raise a UserError if the checkpoint `other` has another model config than the loaded one at `path`."""
    current, new = model_config(path), model_config(other)
    names = sorted(key for key in current.keys() | new.keys() if current.get(key) != new.get(key))
    if names:
        raise UserError(
            f"{other}/config.json differs from that of {path} in {', '.join(names)}: a running engine can load other "
            "weights but not another model: use a separate command"
        )


def config_folder(path: Path, cache: Path) -> Path:
    """A folder in `cache` with the checkpoint's config alone; its path depends only on its contents.

    vLLM's compile cache depends on the path of the model: with the checkpoints' own paths each would compile anew.
    """
    text = json.dumps(model_config(path), indent=2, sort_keys=True)
    folder = cache / "salsa" / hashlib.sha256(text.encode()).hexdigest()[:16]
    if not (folder / "config.json").exists():
        with output_file(folder / "config.json") as file:
            file.write_text(text, encoding="utf-8")
    return folder
