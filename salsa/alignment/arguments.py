"""The arguments of `align`. Imports nothing heavy: help and errors come at once."""

import argparse
from pathlib import Path

from salsa.config.algorithms import RL_ALGORITHMS, Ppo
from salsa.config.arguments import add_policy_arguments, complete
from salsa.data.training_sets import PREPARED
from salsa.runtime.argument_types import count

TRACKERS = ("tensorboard", "wandb")


def tracker_names(text: str) -> list[str]:
    """Parse a comma-separated list of trackers; "none" means no tracker."""
    names = [name for name in text.split(",") if name != "none"]
    for name in names:
        if name not in TRACKERS:
            raise argparse.ArgumentTypeError(f"{name}: unknown tracker: choose from {', '.join(TRACKERS)}, or none")
    return names


def align(parser: argparse.ArgumentParser) -> None:
    add_policy_arguments(parser, "ppo", Ppo)
    parser.set_defaults(check=check_align)
    parser.add_argument(
        "--algorithm",
        choices=list(RL_ALGORITHMS),
        help="default: that of --method, else ppo; the settings below are PPO's",
    )
    parser.add_argument("--sft", type=Path, help="SFT 1: the KL to it is logged for every method")
    parser.add_argument(
        "--reward", type=Path, help="reward model, or several that combine made one; PPO's value model starts from it"
    )
    parser.add_argument("--gold", action="store_true", help="log the mini world's gold reward")
    parser.add_argument(
        "--checkpoint-minutes", type=float, default=30, metavar="N", help="minutes between saved states (default 30)"
    )
    parser.add_argument(
        "--keep-checkpoints", type=count, default=1, metavar="K", help="number of saved states to keep (default 1)"
    )
    parser.add_argument("--prepared", type=Path, default=PREPARED, help=f"cache of token ids (default {PREPARED})")
    parser.add_argument(
        "--report-to",
        type=tracker_names,
        default="none",
        metavar="NAME,…",
        help=f"also send metrics to: {', '.join(TRACKERS)} (default: none)",
    )


def check_align(arguments: argparse.Namespace) -> None:
    """Fill in what --config knows. A UserError names what is missing."""
    complete(
        arguments,
        [arguments.algorithm] if arguments.algorithm else list(RL_ALGORITHMS),
        ("init", "reference", "sft", "reward", "settings", "seed"),
    )
