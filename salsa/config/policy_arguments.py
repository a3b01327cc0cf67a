"""What the stages that train a policy are given: on the command line, or by the config as the workflow does it."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel

from salsa.config.config import Config, algorithm_settings, load_config, with_local_copies
from salsa.config.layout import checkpoint_folder, first_sft_folder, reward_folder
from salsa.config.references import Fixed, Strategy, parse_strategy, strategy_json
from salsa.runtime.errors import UserError
from salsa.runtime.settings import settings_help


def add_policy_arguments(parser: argparse.ArgumentParser, section: str, schema: type[BaseModel]) -> None:
    """The arguments that PPO and DPO share; the help ends with the section's settings."""
    parser.add_argument("--init", type=Path, help="checkpoint that the policy starts from")
    parser.add_argument(
        "--reference", type=Path, nargs="+", metavar="DIR", help="checkpoints that the reference is made of"
    )
    parser.add_argument(
        "--strategy", metavar="JSON", help='how it is made of them, for example {"ema": {"rate": 0.01}}; default: fixed'
    )
    parser.add_argument("--settings", help=f"the config's {section} section: JSON or FILE.yaml#{section}")
    parser.add_argument("--seed", type=int, help="the config's seed")
    parser.add_argument(
        "--config", type=Path, nargs="+", metavar="FILE", help="take from this config what is not given"
    )
    parser.add_argument("--model", help="with --config: which of its models; default: the first")
    parser.add_argument("--method", help="with --config: which of its methods; default: the first of this algorithm")
    parser.add_argument("--rl-seed", type=int, default=1, help="which of the runs (default 1)")
    parser.add_argument("--out", type=Path, required=True, help="folder for the policy")
    parser.add_argument("--metrics", type=Path, help="JSONL file, a line a step (default: OUT.jsonl)")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = settings_help(schema)


def complete(arguments: argparse.Namespace, algorithm: str, needed: Sequence[str]) -> Strategy:
    """Fills in what the command line leaves open; returns the reference strategy. A UserError names what is missing."""
    if arguments.config:
        _fill_in(arguments, with_local_copies(load_config(*arguments.config))[0], algorithm)
    missing = [f"--{name}" for name in needed if getattr(arguments, name) is None]
    if missing:
        raise UserError(f"{', '.join(missing)} missing: give them, or --config")
    if arguments.metrics is None:
        arguments.metrics = arguments.out.with_name(f"{arguments.out.name}.jsonl")
    text = strategy_json(Fixed()) if arguments.strategy is None else arguments.strategy
    return parse_strategy(text, len(arguments.reference))


def _chosen(name: str | None, known: list[str], option: str) -> str:
    """The name given, which has to be one of those known, or else the first of them."""
    if not known:
        raise UserError(f"--config: nothing there to name with {option}: this stage trains no method of it")
    if name is not None and name not in known:
        raise UserError(f"{option} {name}: the config has {', '.join(known)}: name one of these")
    return name or known[0]


def _fill_in(arguments: argparse.Namespace, config: Config, algorithm: str) -> None:
    model = _chosen(arguments.model, list(config.models), "--model")
    trained = [name for name, method in config.methods.items() if method.algorithm == algorithm]
    method = config.methods[name := _chosen(arguments.method, trained, "--method")]
    strategy, references = method.reference_parts()
    found = {
        "init": Path(checkpoint_folder(config, model, method.init)),
        "sft": Path(first_sft_folder(config, model)),
        "reward": Path(reward_folder(config, model)),
        "settings": algorithm_settings(config, model, name).model_dump_json(exclude_none=True),
        "seed": config.seed,
        "gold": config.world is not None,
    }
    if arguments.reference is None:
        found |= {
            "reference": [Path(checkpoint_folder(config, model, checkpoint)) for checkpoint in references],
            "strategy": strategy_json(strategy),
        }
    for key, value in found.items():
        # An option that this stage does not have counts as given.
        given = getattr(arguments, key, value)
        if given is None or given is False:
            setattr(arguments, key, value)


def of_references(folders: Sequence[Path]) -> dict[str, Path]:
    """The references as a run's inputs."""
    return {f"reference_{number}": path for number, path in enumerate(folders, 1)}
