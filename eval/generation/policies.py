"""The argument --policy NAME=FOLDER of stages that handle several policies of one model."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from salsa.runtime.errors import UserError

Named = tuple[str, Path]


def named_folder(text: str) -> Named:
    """Parse NAME=FOLDER."""
    name, _, folder = text.partition("=")
    if not name or not folder or "/" in name:
        raise argparse.ArgumentTypeError(f"{text}: write it as NAME=FOLDER, for example salsa-s1=checkpoints/salsa-s1")
    return name, Path(folder)


def add_policies_argument(parser: argparse.ArgumentParser) -> None:
    """Add --policy, once for each policy."""
    parser.add_argument(
        "--policy",
        action="append",
        type=named_folder,
        required=True,
        metavar="NAME=FOLDER",
        help="a policy and its checkpoint; repeat for several policies of one model",
    )


def checkpoints_by_name(given: Sequence[Named]) -> dict[str, Path]:
    """The checkpoint of each policy. A UserError if a name is given twice."""
    names = [name for name, _ in given]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"--policy {', '.join(twice)}: given more than once: use each name once")
    return dict(given)
