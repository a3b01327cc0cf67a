"""Stage `align`: train a policy with PPO against a reference. For SALSA the reference is a soup."""

import argparse
import contextlib
import copy
import json
import shutil
from pathlib import Path

from salsa.checkpoints.kept import KEPT
from salsa.checkpoints.loading import load_tokenizer
from salsa.checkpoints.saving import check_saving, save
from salsa.config.policy_arguments import add_policy_arguments, complete, reference_inputs
from salsa.config.references import strategy_data
from salsa.config.sections import Ppo
from salsa.data.token_cache import prepare
from salsa.data.training_sets import PREPARED, ppo_sets
from salsa.devices import processes
from salsa.ppo.models import Prompt, load_models
from salsa.ppo.resume import Checkpoints
from salsa.ppo.samplers import load_sampler
from salsa.ppo.trainer import Training, train
from salsa.runtime.interruption import defer_sigterm
from salsa.runtime.jsonl import write_jsonl
from salsa.runtime.log import log
from salsa.runtime.outputs import output_file, output_folder, scratch
from salsa.runtime.provenance import Run
from salsa.runtime.seeds import run_seed
from salsa.runtime.settings import load_settings
from salsa.runtime.trackers import TRACKERS, tracker_names, trackers


def load_prompts(settings: Ppo, init: Path, seed: int, cache: Path) -> tuple[list[Prompt], dict[str, int]]:
    """Load prompts of at most `max_prompt_length` tokens; returns them and the data counts."""
    prepared = prepare("ppo.prompts", ppo_sets(settings, seed)["ppo.prompts"], load_tokenizer(init), cache)
    if longer := prepared.counts["too_long"]:
        log.warning(
            "ppo: left out %d of %d prompts that are longer than %d tokens",
            *(longer, prepared.counts["rows"], settings.max_prompt_length),
        )
    return [Prompt(json.loads(row["messages"]), row["ids"]) for row in prepared.data], prepared.counts


def count(text: str) -> int:
    """Parse a command-line number of at least 1."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{number}: at least 1")
    return number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_policy_arguments(parser, "ppo", Ppo)
    parser.add_argument("--sft", type=Path, help="SFT 1: the KL to it is logged for every method")
    parser.add_argument("--reward", type=Path, help="reward model; the value model starts from it")
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


def run(arguments: argparse.Namespace) -> None:
    with processes.process_group() as cleanup:
        _run(arguments, cleanup)


def _run(arguments: argparse.Namespace, cleanup: contextlib.ExitStack) -> None:
    strategy = complete(arguments, "ppo", ("init", "reference", "sft", "reward", "settings", "seed"))
    settings = load_settings(arguments.settings, Ppo)
    inputs = {name: getattr(arguments, name) for name in ("init", "sft", "reward")} | reference_inputs(
        arguments.reference
    )
    if settings.prompts.path is not None:
        inputs["prompts"] = Path(settings.prompts.path)
    seeds = {"seed": arguments.seed, "rl_seed": arguments.rl_seed, "run": arguments.run}
    # max_kl is not part of the run's id: a run that it stopped resumes when it is raised.
    recorded = {**settings.model_dump(exclude={"max_kl"}), "reference": strategy_data(strategy)}
    record = Run("align", recorded, inputs, seeds)
    prompts, counts = load_prompts(settings, arguments.init, arguments.seed, arguments.prepared)
    models = load_models(arguments.init, arguments.reference, strategy, arguments.sft, arguments.reward, settings)
    with scratch(arguments.out) as folder:
        check_saving(models.policy.model, models.tokenizer, folder, settings.dtype)
    sampler = load_sampler(arguments.init, models.tokenizer, settings)
    cleanup.callback(sampler.close)
    root = run_seed(arguments.seed, arguments.run)
    training = Training(models, sampler, prompts, settings, root, arguments.rl_seed, arguments.gold)
    unfinished = arguments.out.with_name(f"{arguments.out.name}.training")
    checkpoints = Checkpoints(unfinished / record.id(), arguments.checkpoint_minutes, arguments.keep_checkpoints)
    board = arguments.metrics.with_suffix(".board")
    kept = checkpoints.folder / KEPT

    def keep(step: int) -> None:
        """Save the policy after so many steps, beside the state of the unfinished run."""
        with models.policy.complete(settings.dtype) as policy:
            if processes.is_main():
                with output_folder(kept / str(step)) as folder:
                    # A copy, because saving casts the weights, and training goes on.
                    save(copy.deepcopy(policy), models.tokenizer, folder, settings.dtype)

    with (
        defer_sigterm() as stop_requested,
        trackers(arguments.report_to, board, record.id(), recorded, checkpoints.newest()) as report,
    ):
        history = train(training, checkpoints, report, stop_requested, keep)
    facts = {"max_kl": settings.max_kl, "processes": processes.count()}
    record.extra = {**facts, "data": {"ppo.prompts": counts}, "last_step": history[-1]}
    with models.policy.complete(settings.dtype) as policy:
        if not processes.is_main():
            return
        with output_folder(arguments.out, record) as folder:
            save(policy, models.tokenizer, folder, settings.dtype)
            if settings.checkpoints_at:
                shutil.copytree(kept, folder / KEPT)
        with output_file(arguments.metrics) as path:
            write_jsonl(path, history)
        shutil.rmtree(unfinished)
