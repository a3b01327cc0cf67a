"""Prepare an existing base checkpoint (hub or local folder): add the configured chat template and pad token."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import httpx  # huggingface_hub uses it and passes its errors through
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
    """Download a checkpoint at its revision into `out`.

    The download folder beside `out` stays until the end, so an interrupted download resumes.
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
    """Adopt a local checkpoint into `out`; weights are symlinked, not copied."""
    source = Path(model.path)
    template = read_template(model.chat_template)
    check_folder(source)
    with output_folder(out, record) as folder:
        _fill(folder, source, model.path, template, model.pad_token, _link)


def check_folder(source: Path) -> None:
    """Raise a UserError if the folder lacks config, tokenizer or weights."""
    for name in ("config.json", "tokenizer_config.json"):
        if not (source / name).is_file():
            raise UserError(f"models: {source}: no {name} there: name a folder with a checkpoint and its tokenizer")
    if not any(source.glob(WEIGHTS)):
        raise UserError(f"models: {source}: no *.safetensors there: save the checkpoint in that format")
    check_pieces(source, str(source))


def check_pieces(folder: Path, name: str) -> None:
    """Raise a UserError if there is a SentencePiece model without tokenizer.json.

    transformers 5 would convert it without the pieces' scores, and runs of spaces (as in code) would become other
    tokens than the model was trained on.
    """
    if (folder / "tokenizer.model").is_file() and not (folder / "tokenizer.json").is_file():
        raise UserError(
            f"models: {name}: tokenizer.model without tokenizer.json; converting it here would change tokens: use the "
            "publisher's tokenizer.json, or save the tokenizer with transformers 4"
        )


def _link(weights: Path, name: Path) -> None:
    name.symlink_to(weights.resolve())


def read_template(path: str) -> str:
    """Text of a chat template file."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"chat_template {path}: cannot read it: {error.strerror}; correct the path") from None


def _fill(
    folder: Path, source: Path, name: str, template: str, pad_token: str, take: Callable[[Path, Path], object]
) -> None:
    """Write the adopted checkpoint into `folder`; `take` moves or links a weight file."""
    weights = list(source.glob(WEIGHTS))
    for pattern in BESIDE_WEIGHTS:
        for path in source.glob(pattern):
            shutil.copy(path, folder)
    tokenizer = open_tokenizer(folder)
    tokenizer.chat_template = template
    # Not convert_tokens_to_ids: it returns <unk>'s id for a missing token, and <unk> may be the requested pad token.
    if pad_token not in tokenizer.get_vocab() or pad_token == tokenizer.eos_token:
        raise UserError(f"models: {name}: {pad_token} cannot be the pad token: name one of its vocabulary, not EOS")
    tokenizer.pad_token = pad_token
    tokenizer.padding_side = "left"
    tokenizer.save_pretrained(folder)
    config: PretrainedConfig = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    # If sampling stops at another token than the EOS of the demonstrations, a policy never learns to stop.
    ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    if tokenizer.eos_token_id not in ends:
        raise UserError(
            f"models: {name}: EOS is {tokenizer.eos_token} (id {tokenizer.eos_token_id}) in its tokenizer and "
            f"{config.eos_token_id} in its config.json: correct the wrong one"
        )
    config.pad_token_id = tokenizer.pad_token_id
    config.save_pretrained(folder)
    keep_token_ids(folder / "generation_config.json", name)
    for path in weights:
        take(path, folder / path.name)
    check_checkpoint(folder, name)


def keep_token_ids(file: Path, name: str) -> None:
    """Reduce a generation_config.json to token ids; sampling follows our config."""
    if not file.exists():
        return
    settings = read_json(file)
    kept = {key: value for key, value in settings.items() if key.endswith("_token_id") or key == "transformers_version"}
    if dropped := sorted(settings.keys() - kept.keys()):
        log.info("%s: only token ids are kept from generation_config.json; dropped: %s", name, ", ".join(dropped))
        file.write_text(json.dumps(kept, indent=2) + "\n")
