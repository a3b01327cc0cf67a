"""Tensors that a checkpoint stores but its model class does not load; they stay out of soups.

Old Llama conversions store rotary frequencies, which the class computes. A model whose config ties the output head to
the embedding may store a copy of the head; the class uses the embedding for both.
"""

import re
from pathlib import Path

from salsa.checkpoints.shards import Tensor, read_exactly, read_json
from salsa.runtime.errors import UserError

COMPUTED = re.compile(r"(?:^|\.)rotary_emb\.(?:inv_freq|cos_cached|sin_cached)$|\.(?:attn|attention)\.masked_bias$")
HEAD = "lm_head.weight"
EMBEDDINGS = ("model.embed_tokens.weight", "transformer.wte.weight")
BYTES = 1 << 20


def without_unused(folder: Path, tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Split the tensors into those the model class loads, and the names of the others.

    Raises a UserError if a tied head differs from its embedding: it is unknown which of the two was trained.
    """
    unused = [name for name in tensors if COMPUTED.search(name)]
    embedding = next((tensors[name] for name in EMBEDDINGS if name in tensors), None)
    if HEAD in tensors and embedding is not None and is_tied(folder):
        if not same_bytes(tensors[HEAD], embedding):
            raise UserError(
                f"{folder}: config.json ties {HEAD} to {embedding.name}, but the two stored tensors differ: remove the "
                "one that was not trained, or set tie_word_embeddings to false"
            )
        unused.append(HEAD)
    return {name: tensor for name, tensor in tensors.items() if name not in unused}, sorted(unused)


def is_tied(folder: Path) -> bool:
    """Whether the config ties the output head to the embedding; without the key, its class's default."""
    config = read_json(folder / "config.json")
    if "tie_word_embeddings" in config:
        return bool(config["tie_word_embeddings"])
    from transformers import AutoConfig  # slow to import, and most configs have the key

    return bool(AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True).tie_word_embeddings)


def same_bytes(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are bit-identical."""
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    buffers = bytearray(BYTES), bytearray(BYTES)
    with one.file.open("rb", buffering=0) as first, other.file.open("rb", buffering=0) as second:
        for begin in range(0, one.size, BYTES):
            size = min(BYTES, one.size - begin)
            for handle, tensor, buffer in ((first, one, buffers[0]), (second, other, buffers[1])):
                read_exactly(handle.fileno(), memoryview(buffer)[:size], tensor.start + begin, tensor.file)
            if buffers[0][:size] != buffers[1][:size]:
                return False
    return True
