"""Arguments of the stages that train a policy, and how --config fills in those left out; those of `schema`.

Imports nothing heavy: help and errors come at once.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel

from salsa.config.config import Config, algorithm_settings, all_replicates, load_config, with_local_copies
from salsa.config.layout import first_sft_folder, method_reward_folder, replicate_folder
from salsa.config.references import Fixed, parse_strategy, strategy_json
from salsa.config.replicates import suffix
from salsa.runtime.errors import UserError
from salsa.runtime.seeds import add_run_argument
from salsa.runtime.settings import settings_help


def add_policy_arguments(parser: argparse.ArgumentParser, section: str, schema: type[BaseModel]) -> None:
    """Add the arguments that PPO and DPO share; --help ends with the section's settings."""
    parser.add_argument("--init", type=Path, help="checkpoint that the policy starts from")
    parser.add_argument("--reference", type=Path, nargs="+", metavar="DIR", help="checkpoints of the reference")
    parser.add_argument(
        "--strategy",
        metavar="JSON",
        help='how the reference uses them, for example {"ema": {"rate": 0.01}}; default: fixed',
    )
    parser.add_argument("--settings", help=f"the config's {section} section: JSON or FILE.yaml#{section}")
    parser.add_argument("--seed", type=int, help="the config's seed")
    parser.add_argument(
        "--config", type=Path, nargs="+", metavar="FILE", help="take what is not given from this config"
    )
    parser.add_argument("--model", help="with --config: its model to train; default: the first")
    parser.add_argument("--method", help="with --config: its method; default: the first that this stage trains")
    parser.add_argument("--replicate", help="with --config: its replicate; default: the first")
    parser.add_argument("--rl-seed", type=int, default=1, help="RL seed of this run (default 1)")
    add_run_argument(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder for the policy")
    parser.add_argument("--metrics", type=Path, help="JSONL file, one line per step (default: OUT.jsonl)")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = settings_help(schema)


def complete(arguments: argparse.Namespace, algorithms: Sequence[str], needed: Sequence[str]) -> None:
    """Fill in arguments from --config, and parse --strategy. A UserError names what is still missing.

    `algorithms` are those that the stage trains with; the first one is the default.
    """
    if arguments.config:
        _fill_in(arguments, with_local_copies(load_config(*arguments.config))[0], algorithms)
    if getattr(arguments, "algorithm", algorithms[0]) is None:
        arguments.algorithm = algorithms[0]
    missing = [f"--{name}" for name in needed if getattr(arguments, name) is None]
    if missing:
        raise UserError(f"{', '.join(missing)} missing: give them, or --config")
    if arguments.metrics is None:
        arguments.metrics = arguments.out.with_name(f"{arguments.out.name}.jsonl")
    text = strategy_json(Fixed()) if arguments.strategy is None else arguments.strategy
    arguments.strategy = parse_strategy(text, len(arguments.reference))


def _choose(name: str | None, known: list[str], option: str) -> str:
    """The given name, or the first known one."""
    if not known:
        raise UserError(f"--config: no choice for {option}: the config has no method that this stage trains")
    if name is not None and name not in known:
        raise UserError(f"{option} {name}: the config has {', '.join(known)}: name one of these")
    return name or known[0]


def _fill_in(arguments: argparse.Namespace, config: Config, algorithms: Sequence[str]) -> None:
    model = _choose(arguments.model, list(config.models), "--model")
    trained = [name for name, method in config.methods.items() if method.algorithm in algorithms]
    method = config.methods[name := _choose(arguments.method, trained, "--method")]
    strategy, references = method.reference_parts()
    replicate = _choose(arguments.replicate, list(all_replicates(config)), "--replicate")
    values = {
        "init": Path(replicate_folder(config, model, replicate, method.init)),
        "sft": Path(first_sft_folder(config, model, replicate)),
        "reward": Path(method_reward_folder(config, model, replicate, name)),
        "run": f"{model}{suffix(replicate)}",
        "settings": algorithm_settings(config, model, name).model_dump_json(exclude_none=True),
        "seed": config.seed,
        "gold": config.world is not None,
        "algorithm": method.algorithm,
    }
    if arguments.reference is None:
        values |= {
            "reference": [Path(replicate_folder(config, model, replicate, checkpoint)) for checkpoint in references],
            "strategy": strategy_json(strategy),
        }
    for key, value in values.items():
        # An option that this stage does not have counts as given.
        given = getattr(arguments, key, value)
        if given is None or given is False or given == "":
            setattr(arguments, key, value)


def reference_inputs(folders: Sequence[Path]) -> dict[str, Path]:
    """Names for the reference checkpoints among a run's inputs."""
    return {f"reference_{number}": path for number, path in enumerate(folders, 1)}


def schema(parser: argparse.ArgumentParser) -> None:
    """No arguments: the schema depends only on the code."""
