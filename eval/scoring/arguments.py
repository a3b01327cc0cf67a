"""The arguments of `score`, `frontier`, `alpha` and `greedy`. Imports nothing heavy: help and errors come at once."""

import argparse
from pathlib import Path

from eval.generation.arguments import add_policies_argument, check_policies, named_folder
from salsa.data.training_sets import PREPARED
from salsa.runtime.errors import UserError
from salsa.runtime.seeds import add_run_argument


def named_strategy(text: str) -> tuple[str, str]:
    """Parse NAME=JSON."""
    name, _, strategy = text.partition("=")
    if not name or not strategy:
        raise argparse.ArgumentTypeError(f"{text}: write it as NAME=JSON")
    return name, strategy


def add_probe_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the stages that measure checkpoints on held-out prompts."""
    parser.add_argument("--sft", type=Path, required=True, help="SFT 1: KL is measured to it")
    parser.add_argument("--reward", type=Path, required=True, help="reward model")
    parser.add_argument("--gold", action="store_true", help="add the mini world's gold reward")
    parser.add_argument("--seed", type=int, required=True, help="the config's seed")
    add_run_argument(parser)
    parser.add_argument("--settings", required=True, help="the config's alpha section: JSON or FILE.yaml#section")
    parser.add_argument("--prepared", type=Path, default=PREPARED, help=f"cache of token ids (default {PREPARED})")
    parser.add_argument("--out", type=Path, required=True, help="JSONL file")


def score(parser: argparse.ArgumentParser) -> None:
    add_policies_argument(parser)
    parser.set_defaults(check=check_score)
    parser.add_argument("--sft", type=Path, required=True, help="SFT 1: KL to it is measured for all methods")
    parser.add_argument(
        "--reference",
        action="append",
        type=named_folder,
        default=[],
        metavar="NAME=FOLDER",
        help="a checkpoint of a policy's reference; repeat; none for an untrained method or a moving reference",
    )
    parser.add_argument(
        "--strategy",
        action="append",
        type=named_strategy,
        default=[],
        metavar="NAME=JSON",
        help="how a policy's reference uses its checkpoints; default: fixed",
    )
    parser.add_argument("--reward", type=Path, required=True, help="reward model")
    parser.add_argument(
        "--held-out-reward", type=Path, metavar="FOLDER", help="a reward model that no policy was trained against"
    )
    parser.add_argument("--generations", type=Path, required=True, help="folder with POLICY/BENCHMARK.jsonl")
    parser.add_argument("--benchmark", action="append", required=True, metavar="NAME", help="a benchmark; repeat")
    parser.add_argument("--gold", action="store_true", help="add the mini world's gold reward")
    parser.add_argument("--settings", default="{}", help="the config's score section: JSON or FILE.yaml#section")
    parser.add_argument("--out", type=Path, required=True, help="folder of the files POLICY/BENCHMARK.jsonl")


def check_score(arguments: argparse.Namespace) -> None:
    """Check that all options name policies of --policy."""
    check_policies(arguments)
    named = {name for name, _ in (*arguments.reference, *arguments.strategy)}
    if unknown := sorted(named - arguments.policy.keys()):
        raise UserError(f"--reference, --strategy: no policy {unknown[0]}: name one that --policy gives")


def frontier(parser: argparse.ArgumentParser) -> None:
    add_policies_argument(parser)
    parser.add_argument(
        "--held-out-reward", type=Path, metavar="FOLDER", help="a reward model that no policy was trained against"
    )
    parser.add_argument(
        "--trained-on",
        action="append",
        type=named_folder,
        default=[],
        metavar="NAME=FOLDER",
        help="the reward that a policy was trained against, if it is not --reward; repeat",
    )
    parser.set_defaults(check=check_frontier)
    add_probe_arguments(parser)


def check_frontier(arguments: argparse.Namespace) -> None:
    """Check that --trained-on names policies of --policy."""
    check_policies(arguments)
    if unknown := sorted(dict(arguments.trained_on).keys() - arguments.policy.keys()):
        raise UserError(f"--trained-on: no policy {unknown[0]}: name one that --policy gives")


def alpha(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--checkpoint", action="append", required=True, metavar="ALPHA=DIR", help="a point of the line; repeat"
    )
    parser.add_argument(
        "--also",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="a further checkpoint, with alpha null; repeat",
    )
    parser.add_argument(
        "--test",
        required=True,
        help="held-out demonstrations: a JSONL file, JSON, or FILE.yaml#sft.test",
    )
    add_probe_arguments(parser)


def greedy(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", type=Path, action="append", required=True, help="an SFT model to try; repeat")
    parser.add_argument("--reward", type=Path, required=True, help="reward model that chooses")
    parser.add_argument("--seed", type=int, required=True, help="the config's seed")
    add_run_argument(parser)
    parser.add_argument("--settings", required=True, help="the config's alpha section: JSON or FILE.yaml#section")
    parser.add_argument("--soup", default="{}", help="the config's soup section: JSON or FILE.yaml#section")
    parser.add_argument("--prepared", type=Path, default=PREPARED, help=f"cache of token ids (default {PREPARED})")
    parser.add_argument("--out", type=Path, required=True, help="folder of the soup")
