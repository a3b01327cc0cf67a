"""Named seeds: each random draw has its own seed, derived from the config's seed and the draw's name."""

import argparse
import hashlib


def derive_seed(root: int, *names: str | int) -> int:
    """Derive a 31-bit seed from the config's `seed` and the names of the draw.

    The separator occurs in no name, so ("a", "bc") and ("ab", "c") give different seeds.
    """
    text = "\x1f".join([str(root), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def add_run_argument(parser: argparse.ArgumentParser) -> None:
    """Add --run to a stage that draws at random."""
    parser.add_argument(
        "--run",
        default="",
        metavar="NAME",
        help="name of the run's random draws: with another name (model and replicate) they are independent",
    )


def run_seed(seed: int, run: str) -> int:
    """Seed of the draws of the run called `run`; `seed` itself for a run without a name."""
    return derive_seed(seed, "run", run) if run else seed
