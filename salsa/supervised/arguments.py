"""The arguments of the stages here. Imports nothing heavy: help and errors come at once."""

import argparse
from pathlib import Path

from salsa.config.algorithms import Dpo
from salsa.config.arguments import add_policy_arguments, complete
from salsa.data.training_sets import PREPARED
from salsa.runtime.argument_types import count
from salsa.runtime.errors import UserError
from salsa.runtime.seeds import add_run_argument


def base(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, help="the model's name in the config")
    parser.add_argument("--settings", required=True, help="JSON with the keys model and base")
    parser.add_argument("--world", type=Path, help="the mini world's folder, for a mini model")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)


def sft(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--base", type=Path, required=True, help="base checkpoint")
    parser.add_argument("--settings", required=True, help="the config's sft section: JSON or FILE.yaml#sft")
    parser.add_argument("--seed", type=int, required=True, help="the config's seed")
    parser.add_argument("--sft-seed", type=int, required=True, help="seed of this SFT model")
    add_run_argument(parser)
    parser.add_argument("--prepared", type=Path, default=PREPARED, help=f"cache of token ids (default {PREPARED})")
    parser.add_argument("--out", type=Path, required=True)


def reward(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--sft", type=Path, required=True, help="SFT 1: the start, and the source of samples for normalisation"
    )
    parser.add_argument("--settings", required=True, help="the config's reward section: JSON or FILE.yaml#reward")
    parser.add_argument("--seed", type=int, required=True, help="the config's seed")
    parser.add_argument("--reward-seed", type=int, default=1, help="seed of this reward model (default 1)")
    parser.add_argument(
        "--held-out", action="store_true", help="train the reward model that no policy is trained against"
    )
    parser.add_argument(
        "--order", type=count, default=1, help="number of the order in which it reads the pairs (default 1)"
    )
    _add_reward_outputs(parser)


def _add_reward_outputs(parser: argparse.ArgumentParser) -> None:
    add_run_argument(parser)
    parser.add_argument("--prepared", type=Path, default=PREPARED, help=f"cache of token ids (default {PREPARED})")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--card", type=Path, required=True, help="JSON file: accuracy on held-out pairs, normalisation")


def combine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--reward", type=Path, nargs="+", required=True, metavar="DIR", help="reward models that start from one head"
    )
    parser.add_argument(
        "--by",
        choices=("weights", "mean", "min"),
        required=True,
        help="average the weights (WARM), or take the mean or the minimum of the normalised scores",
    )
    parser.add_argument("--sft", type=Path, required=True, help="SFT 1, the source of samples for normalisation")
    parser.add_argument("--settings", required=True, help="the config's reward section: JSON or FILE.yaml#reward")
    parser.add_argument("--seed", type=int, required=True, help="the config's seed")
    parser.add_argument("--reward-seed", type=int, default=1, help="seed of the reward models (default 1)")
    _add_reward_outputs(parser)


def dpo(parser: argparse.ArgumentParser) -> None:
    add_policy_arguments(parser, "dpo", Dpo)
    parser.set_defaults(check=check_dpo)
    parser.add_argument("--prepared", type=Path, default=PREPARED, help=f"cache of token ids (default {PREPARED})")


def check_dpo(arguments: argparse.Namespace) -> None:
    """Fill in what --config knows. A UserError names what is missing, or a reference that DPO cannot have."""
    complete(arguments, ["dpo"], ("init", "reference", "settings", "seed"))
    if arguments.strategy.moves:
        raise UserError(f"--strategy {arguments.strategy.kind} changes during training: DPO needs a fixed reference")
