"""An existing base checkpoint, of the hub or in a folder, with the chat template and pad token that it is to have."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import httpx  # what huggingface_hub speaks with, and whose errors it lets through
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from transformers import AutoConfig, PretrainedConfig

from salsa.checkpoints.floats import check_checkpoint
from salsa.checkpoints.loading import open_tokenizer
from salsa.checkpoints.shards import read_json
from salsa.config.sections import HubModel, LocalModel
from salsa.runtime.errors import UserError
from salsa.runtime.log import log
from salsa.runtime.outputs import output_folder
from salsa.runtime.provenance import Run

WEIGHTS = "*.safetensors"
BESIDE_WEIGHTS = [
    "*.safetensors.index.json",
    "config.json",
    "generation_config.json",
    "token*",
    "special_tokens*",
]


def from_hub(model: HubModel, out: Path, record: Run) -> None:
    """A checkpoint at its revision.

    What was downloaded stays beside `out` until all is well, so that a run that was interrupted goes on.
    """
    template = read_template(model.chat_template)
    download = out.with_name(f".{out.name}.{model.revision}.download")
    try:
        snapshot_download(
            model.id, revision=model.revision, allow_patterns=[WEIGHTS, *BESIDE_WEIGHTS], local_dir=download
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, httpx.HTTPError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"{model.id}@{model.revision}: cannot download it ({reason}): check the network, and HF_TOKEN with the "
            "model's licence accepted if it is gated"
        ) from None
    check_pieces(download, model.id)
    with output_folder(out, record) as folder:
        _fill(folder, download, model.id, template, model.pad_token, Path.rename)
    shutil.rmtree(download)


def from_folder(model: LocalModel, out: Path, record: Run) -> None:
    """A checkpoint of this machine; its weights are linked to, not copied."""
    source = Path(model.path)
    template = read_template(model.chat_template)
    check_folder(source)
    with output_folder(out, record) as folder:
        _fill(folder, source, model.path, template, model.pad_token, _link)


def check_folder(source: Path) -> None:
    """Refuses a folder without config, tokenizer or weights."""
    for name in ("config.json", "tokenizer_config.json"):
        if not (source / name).is_file():
            raise UserError(f"models: {source}: no {name} there: name the folder of a checkpoint and its tokenizer")
    if not any(source.glob(WEIGHTS)):
        raise UserError(f"models: {source}: no *.safetensors there: save the checkpoint in that form")
    check_pieces(source, str(source))


def check_pieces(folder: Path, name: str) -> None:
    """Refuses SentencePiece's file alone.

    transformers 5 makes a tokenizer of it without the pieces' scores: runs of spaces, as code has them, become other
    tokens than the model has learnt.
    """
    if (folder / "tokenizer.model").is_file() and not (folder / "tokenizer.json").is_file():
        raise UserError(
            f"models: {name}: tokenizer.model without tokenizer.json, which cannot be made from it here without a "
            "change of tokens: take the publisher's, or save the tokenizer with transformers 4"
        )


def _link(weights: Path, name: Path) -> None:
    name.symlink_to(weights.resolve())


def read_template(path: str) -> str:
    """A chat template's text."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"chat_template {path}: cannot read it: {error.strerror}; correct the path") from None


def _fill(
    folder: Path, source: Path, name: str, template: str, pad_token: str, take: Callable[[Path, Path], object]
) -> None:
    """The checkpoint in `folder`; `take` brings a file of weights there."""
    weights = list(source.glob(WEIGHTS))
    for pattern in BESIDE_WEIGHTS:
        for path in source.glob(pattern):
            shutil.copy(path, folder)
    tokenizer = open_tokenizer(folder)
    tokenizer.chat_template = template
    # Not by convert_tokens_to_ids: a token that is not there gets the id of <unk>, which may be the one asked for.
    if pad_token not in tokenizer.get_vocab() or pad_token == tokenizer.eos_token:
        raise UserError(f"models: {name} has no token {pad_token} to pad with: name one that it has, not EOS")
    tokenizer.pad_token = pad_token
    tokenizer.padding_side = "left"
    tokenizer.save_pretrained(folder)
    config: PretrainedConfig = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    # A policy that never meets the EOS which ended its demonstrations never learns to stop.
    ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    if tokenizer.eos_token_id not in ends:
        raise UserError(
            f"models: {name}: its tokenizer ends texts with {tokenizer.eos_token} (id {tokenizer.eos_token_id}), its "
            f"config.json with {config.eos_token_id}: correct the one that is wrong"
        )
    config.pad_token_id = tokenizer.pad_token_id
    config.save_pretrained(folder)
    keep_token_ids(folder / "generation_config.json", name)
    for path in weights:
        take(path, folder / path.name)
    check_checkpoint(folder, name)


def keep_token_ids(file: Path, name: str) -> None:
    """Leaves in a generation config what generation here uses: the ids of special tokens."""
    if not file.exists():
        return
    said = read_json(file)
    kept = {key: value for key, value in said.items() if key.endswith("_token_id") or key == "transformers_version"}
    if left_out := sorted(said.keys() - kept.keys()):
        log.info("%s: of generation_config.json only token ids are used; left out: %s", name, ", ".join(left_out))
        file.write_text(json.dumps(kept, indent=2) + "\n")
