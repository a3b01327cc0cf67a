"""Command `merge`: write a LoRA checkpoint as an ordinary one, for other programs. salsa's stages need no such copy."""

import argparse

from salsa.checkpoints.adapters import write_merged
from salsa.checkpoints.loading import DTYPES
from salsa.checkpoints.shards import is_adapter
from salsa.runtime.errors import UserError
from salsa.runtime.log import log
from salsa.runtime.outputs import output_folder
from salsa.runtime.provenance import Run
from salsa.soups.soup import set_dtype


def run(arguments: argparse.Namespace) -> None:
    checkpoint, dtype = arguments.checkpoint, arguments.dtype
    if not is_adapter(checkpoint):
        raise UserError(f"--checkpoint {checkpoint}: not a LoRA checkpoint: use it as it is")
    record = Run("merge", {"dtype": dtype}, {"checkpoint": checkpoint}, {})
    with output_folder(arguments.out, record) as folder:
        write_merged(checkpoint, folder, DTYPES.get(dtype))
        if dtype is not None:
            set_dtype(folder / "config.json", dtype)
    log.info("merge: wrote %s", arguments.out)
