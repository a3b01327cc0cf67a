"""The arguments of `generate`, and --policy, which other stages have, too.

Imports nothing heavy: help and errors come at once.
"""

import argparse
from pathlib import Path

from salsa.runtime.errors import UserError
from salsa.runtime.seeds import add_run_argument

Named = tuple[str, Path]


def named_folder(text: str) -> Named:
    """Parse NAME=FOLDER."""
    name, _, folder = text.partition("=")
    if not name or not folder or "/" in name:
        raise argparse.ArgumentTypeError(f"{text}: write it as NAME=FOLDER, for example salsa-s1=checkpoints/salsa-s1")
    return name, Path(folder)


def add_policies_argument(parser: argparse.ArgumentParser) -> None:
    """Add --policy, once for each policy."""
    parser.set_defaults(check=check_policies)
    parser.add_argument(
        "--policy",
        action="append",
        type=named_folder,
        required=True,
        metavar="NAME=FOLDER",
        help="a policy and its checkpoint; repeat for several policies of one model",
    )


def check_policies(arguments: argparse.Namespace) -> None:
    """Make --policy a mapping from names to checkpoints. A UserError if a name is given twice."""
    names = [name for name, _ in arguments.policy]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"--policy {', '.join(twice)}: given more than once: use each name once")
    arguments.policy = dict(arguments.policy)


def generate(parser: argparse.ArgumentParser) -> None:
    add_policies_argument(parser)
    parser.add_argument("--benchmarks", required=True, help="the config's benchmarks: JSON or FILE.yaml#benchmarks")
    parser.add_argument("--settings", default="{}", help="the config's generate section: JSON or FILE.yaml#section")
    parser.add_argument("--seed", type=int, required=True, help="the config's seed")
    add_run_argument(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder of the files POLICY/BENCHMARK.jsonl")
