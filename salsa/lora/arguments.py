"""The arguments of `merge`. Imports nothing heavy: help and errors come at once."""

import argparse
from pathlib import Path


def merge(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", type=Path, required=True, help="a LoRA checkpoint: SFT, soup, reward or policy")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), help="dtype of the weights (default: that of the base)"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the ordinary checkpoint")
