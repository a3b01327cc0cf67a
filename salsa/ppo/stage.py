"""Stage `align`: trains a policy with PPO against a frozen reference.

PPO and SALSA are this command with another `--reference`.
"""

import argparse
import shutil
from pathlib import Path

from salsa.checkpoints import load_tokenizer, render
from salsa.config import Ppo
from salsa.data import conversation, load_rows
from salsa.errors import UserError
from salsa.ppo.models import load_models
from salsa.ppo.rollout import Prompt
from salsa.ppo.trainer import train
from salsa.seeds import derive_seed
from salsa.stage import Run, load_settings, log, output_file, output_folder, write_jsonl
from salsa.training import save

GENERATION_CONFIG = "generation_config.json"


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
    parser.add_argument("--init", type=Path, required=True, help="checkpoint that the policy starts from")
    parser.add_argument("--reference", type=Path, required=True, help="frozen checkpoint of the KL penalty")
    parser.add_argument("--sft", type=Path, required=True, help="SFT 1: the KL to it is logged for every method")
    parser.add_argument("--reward", type=Path, required=True, help="reward model; the value model starts from it")
    parser.add_argument("--settings", required=True, help="the config's ppo section: JSON or FILE.yaml#ppo")
    parser.add_argument("--seed", type=int, required=True, help="the config's seed")
    parser.add_argument("--rl-seed", type=int, required=True, help="which of the runs")
    parser.add_argument("--gold", action="store_true", help="log the mini world's gold reward")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--metrics", type=Path, required=True, help="JSONL file, a line a step")


def run(arguments: argparse.Namespace) -> None:
    settings = load_settings(arguments.settings, Ppo)
    inputs = {name: getattr(arguments, name) for name in ("init", "reference", "sft", "reward")}
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
    with output_file(arguments.metrics) as path:
        write_jsonl(path, history)
