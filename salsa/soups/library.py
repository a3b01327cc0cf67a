"""Average checkpoints in a notebook.

from salsa.soups.library import average_checkpoints

average_checkpoints(["sft-a", "sft-b"], "soup")                     # equal weights
average_checkpoints({"sft-a": 0.7, "sft-b": 0.3}, "soup-70-30")

This is the code of the stage `soup`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from salsa.runtime.outputs import output_folder
from salsa.runtime.provenance import Run
from salsa.soups.soup import soup


def average_checkpoints(
    checkpoints: Mapping[str, float] | Sequence[str | Path],
    out: str | Path,
    *,
    dtype: str | None = None,
    shard_size: str = "4GB",
    allow_any_sum: bool = False,
    slerp_from: str | Path | None = None,
) -> Path:
    """Write the weighted average of checkpoints of one architecture as a new checkpoint: a soup.

    Tensors are streamed, so memory does not grow with the models. The sum is computed in float32 and rounded once.

    Args:
        checkpoints: Folders with safetensors weights; a mapping gives their weights, a sequence averages equally.
        out: Folder of the soup, replaced if it exists. Config and tokenizer come from the first checkpoint.
        dtype: "float32", "bfloat16" or "float16"; default: each tensor's dtype in the first checkpoint.
        shard_size: Largest weight file, such as "4GB" or "500MiB".
        allow_any_sum: Accept weights that do not sum to 1.
        slerp_from: Average on the arc between the checkpoints' changes from this one, for example their base model.

    Returns:
        `out`. Its run.json lists the checkpoints with their digests, and the weights.

    Raises:
        UserError: Checkpoints that do not fit together, unusable weights, or a NaN; the text says which.
    """
    if isinstance(checkpoints, Mapping):
        weights = {Path(folder): weight for folder, weight in checkpoints.items()}
    else:
        weights = {Path(folder): 1 / len(checkpoints) for folder in checkpoints}
    settings = {"shard_size": shard_size, "dtype": dtype, "weights": list(weights.values())}
    inputs = {f"ingredient_{number}": path for number, path in enumerate(weights, 1)}
    base = None if slerp_from is None else Path(slerp_from)
    if base is not None:
        inputs["slerp_from"] = base
    record = Run("soup", settings, inputs, {})
    with output_folder(Path(out), record) as folder:
        record.extra = soup(weights, folder, shard_size, allow_any_sum, dtype, slerp_from=base)
    return Path(out)
