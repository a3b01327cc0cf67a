"""Stage `align`: trains a policy with PPO against a frozen reference.

PPO and SALSA are this command with another `--reference`. Given --config, it takes everything from there, as the
workflow's rule does.
"""

import argparse
import shutil
from pathlib import Path

from salsa.checkpoints import load_tokenizer, render
from salsa.config import Config, Ppo, algorithm_settings, load_config
from salsa.data import conversation, load_rows
from salsa.errors import UserError
from salsa.layout import checkpoint_folder, first_sft_folder, reward_folder
from salsa.ppo.models import load_models
from salsa.ppo.rollout import Prompt
from salsa.ppo.trainer import train
from salsa.seeds import derive_seed
from salsa.stage import Run, load_settings, log, output_file, output_folder, settings_help, write_jsonl
from salsa.training import save

GENERATION_CONFIG = "generation_config.json"
FOLDERS = ("init", "reference", "sft", "reward")


def load_prompts(settings: Ppo, init: Path, seed: int) -> list[Prompt]:
    """The prompts of at most `max_prompt_length` tokens; says how many are longer."""
    tokenizer = load_tokenizer(init)
    rows = load_rows(settings.prompts, derive_seed(seed, "ppo", "rows"))
    found = [Prompt(m, render(tokenizer, m, add_generation_prompt=True)) for m in map(conversation, rows)]
    kept = [prompt for prompt in found if len(prompt.ids) <= settings.max_prompt_length]
    if not kept:
        raise UserError(
            f"ppo.max_prompt_length: none of the prompts has at most {settings.max_prompt_length} tokens: raise it"
        )
    if len(kept) < len(found):
        longer = len(found) - len(kept)
        log.warning(
            "ppo: %d of %d prompts are longer than %d tokens: left out", longer, len(found), settings.max_prompt_length
        )
    return kept


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--init", type=Path, help="checkpoint that the policy starts from")
    parser.add_argument("--reference", type=Path, help="frozen checkpoint of the KL penalty")
    parser.add_argument("--sft", type=Path, help="SFT 1: the KL to it is logged for every method")
    parser.add_argument("--reward", type=Path, help="reward model; the value model starts from it")
    parser.add_argument("--settings", help="the config's ppo section: JSON or FILE.yaml#ppo")
    parser.add_argument("--seed", type=int, help="the config's seed")
    parser.add_argument("--gold", action="store_true", help="log the mini world's gold reward")
    parser.add_argument(
        "--config",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="take all of the above that is not given from this config",
    )
    parser.add_argument("--model", help="with --config: which of its models; default: the first")
    parser.add_argument("--method", help="with --config: which of its methods; default: the first that is trained")
    parser.add_argument("--rl-seed", type=int, default=1, help="which of the runs (default 1)")
    parser.add_argument("--out", type=Path, required=True, help="folder for the policy")
    parser.add_argument("--metrics", type=Path, help="JSONL file, a line a step (default: OUT.jsonl)")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = settings_help(Ppo)


def chosen(name: str | None, known: list[str], option: str) -> str:
    """The name given, which has to be one of those known, or else the first of them."""
    if not known:
        raise UserError(f"--config: nothing there to name with {option}: no method of it is trained")
    if name is not None and name not in known:
        raise UserError(f"{option} {name}: the config has {', '.join(known)}: name one of these")
    return name or known[0]


def fill_in(arguments: argparse.Namespace, config: Config) -> None:
    """What the command line leaves open, from the config."""
    model = chosen(arguments.model, list(config.models), "--model")
    trained = [name for name, method in config.methods.items() if method.algorithm != "none"]
    method = config.methods[name := chosen(arguments.method, trained, "--method")]
    assert method.reference is not None, "a trained method has one"
    found = {
        "init": Path(checkpoint_folder(config, model, method.init)),
        "reference": Path(checkpoint_folder(config, model, method.reference)),
        "sft": Path(first_sft_folder(config, model)),
        "reward": Path(reward_folder(config, model)),
        "settings": algorithm_settings(config, name).model_dump_json(exclude_none=True),
        "seed": config.seed,
        "gold": config.world is not None,
    }
    for key, value in found.items():
        given = getattr(arguments, key)
        if given is None or given is False:
            setattr(arguments, key, value)


def run(arguments: argparse.Namespace) -> None:
    if arguments.config:
        fill_in(arguments, load_config(*arguments.config))
    missing = [f"--{key}" for key in (*FOLDERS, "settings", "seed") if getattr(arguments, key) is None]
    if missing:
        raise UserError(f"align: {', '.join(missing)} missing: give them, or --config")
    settings = load_settings(arguments.settings, Ppo)
    inputs = {name: getattr(arguments, name) for name in FOLDERS}
    if settings.prompts.path is not None:
        inputs["prompts"] = Path(settings.prompts.path)
    seeds = {"seed": arguments.seed, "rl_seed": arguments.rl_seed}
    record = Run("align", settings.model_dump(), inputs, seeds)
    prompts = load_prompts(settings, arguments.init, arguments.seed)
    models = load_models(arguments.init, arguments.reference, arguments.sft, arguments.reward, settings)
    history = train(models, prompts, settings, arguments.seed, arguments.rl_seed, arguments.gold)
    record.extra = {"prompts": len(prompts), "last_step": history[-1]}
    with output_folder(arguments.out, record) as folder:
        save(models.policy, models.tokenizer, folder, settings.dtype)
        if (arguments.init / GENERATION_CONFIG).exists():
            shutil.copyfile(arguments.init / GENERATION_CONFIG, folder / GENERATION_CONFIG)
    with output_file(arguments.metrics or arguments.out.with_name(f"{arguments.out.name}.jsonl")) as path:
        write_jsonl(path, history)
