"""Stage `align`: train a policy with PPO, RLOO or GRPO against a reference. For SALSA the reference is a soup."""

import argparse
import contextlib
import copy
import json
import shutil
from pathlib import Path

from salsa.alignment.resume import Checkpoints
from salsa.alignment.training import Training, make_algorithm, train
from salsa.checkpoints.adapters import copy_checkpoint
from salsa.checkpoints.loading import load_tokenizer
from salsa.checkpoints.saving import KEPT, check_saving
from salsa.config.algorithms import RL_ALGORITHMS, Rl
from salsa.config.arguments import reference_inputs
from salsa.config.references import strategy_data
from salsa.data.token_cache import prepare
from salsa.data.training_sets import rl_sets
from salsa.devices import processes
from salsa.lora.checkpoint import save_trained
from salsa.rollouts.models import load_models, loader_for, value_start
from salsa.rollouts.rewards import Prompt
from salsa.rollouts.samplers import load_sampler
from salsa.runtime.interruption import defer_sigterm
from salsa.runtime.jsonl import write_jsonl
from salsa.runtime.log import log
from salsa.runtime.outputs import output_file, output_folder, scratch
from salsa.runtime.provenance import Run
from salsa.runtime.seeds import run_seed
from salsa.runtime.settings import load_settings
from salsa.runtime.trackers import trackers


def load_prompts(settings: Rl, init: Path, seed: int, cache: Path) -> tuple[list[Prompt], dict[str, int]]:
    """Load prompts of at most `max_prompt_length` tokens; returns them and the data counts."""
    prepared = prepare("ppo.prompts", rl_sets(settings, seed)["ppo.prompts"], load_tokenizer(init), cache)
    if longer := prepared.counts["too_long"]:
        log.warning(
            "align: left out %d of %d prompts that are longer than %d tokens",
            *(longer, prepared.counts["rows"], settings.max_prompt_length),
        )
    return [Prompt(json.loads(row["messages"]), row["ids"]) for row in prepared.data], prepared.counts


def run(arguments: argparse.Namespace) -> None:
    with processes.process_group() as cleanup:
        _run(arguments, cleanup)


def _run(arguments: argparse.Namespace, cleanup: contextlib.ExitStack) -> None:
    strategy = arguments.strategy
    settings = load_settings(arguments.settings, RL_ALGORITHMS[arguments.algorithm])
    inputs = {name: getattr(arguments, name) for name in ("init", "sft", "reward")} | reference_inputs(
        arguments.reference
    )
    if settings.prompts.path is not None:
        inputs["prompts"] = Path(settings.prompts.path)
    seeds = {"seed": arguments.seed, "rl_seed": arguments.rl_seed, "run": arguments.run}
    # Not part of the run's id: max_kl, because a run that it stopped resumes when it is raised; frozen_models, because
    # it changes memory alone.
    recorded = {
        "algorithm": arguments.algorithm,
        **settings.model_dump(exclude={"max_kl", "frozen_models"}),
        "reference": strategy_data(strategy),
    }
    record = Run("align", recorded, inputs, seeds)
    prompts, counts = load_prompts(settings, arguments.init, arguments.seed, arguments.prepared)
    root = run_seed(arguments.seed, arguments.run)
    loader = loader_for(settings, root)
    models = load_models(loader, arguments.init, arguments.reference, strategy, arguments.sft, arguments.reward)
    with scratch(arguments.out) as folder:
        check_saving(models.policy.model, models.tokenizer, folder, settings.dtype)
    sampler = load_sampler(arguments.init, models.tokenizer, settings)
    cleanup.callback(sampler.close)
    algorithm = make_algorithm(models, settings, lambda: loader.value(value_start(arguments.reward)))
    training = Training(algorithm, models, sampler, prompts, settings, root, arguments.rl_seed, arguments.gold)
    unfinished = arguments.out.with_name(f"{arguments.out.name}.training")
    checkpoints = Checkpoints(unfinished / record.id(), arguments.checkpoint_minutes, arguments.keep_checkpoints)
    board = arguments.metrics.with_suffix(".board")
    kept = checkpoints.folder / KEPT

    def keep(step: int) -> None:
        """Save the policy after so many steps, beside the state of the unfinished run."""
        with models.policy.complete(settings.dtype) as policy:
            if processes.is_main():
                with output_folder(kept / str(step)) as folder:
                    # Saving casts whole models in place, and training goes on.
                    kept_policy = copy.deepcopy(policy) if settings.lora is None else policy
                    save_trained(kept_policy, models.tokenizer, folder, settings.dtype)

    with (
        defer_sigterm() as stop_requested,
        trackers(arguments.report_to, board, record.id(), recorded, checkpoints.newest()) as report,
    ):
        history = train(training, checkpoints, report, stop_requested, keep)
    facts = {"max_kl": settings.max_kl, "frozen_models": settings.frozen_models, "processes": processes.count()}
    record.extra = {**facts, "data": {"ppo.prompts": counts}, "last_step": history[-1]}
    with models.policy.complete(settings.dtype) as policy:
        if not processes.is_main():
            return
        with output_folder(arguments.out, record) as folder:
            save_trained(policy, models.tokenizer, folder, settings.dtype)
            if settings.checkpoints_at:
                for checkpoint in kept.iterdir():
                    copy_checkpoint(checkpoint, folder / KEPT / checkpoint.name)
        with output_file(arguments.metrics) as path:
            write_jsonl(path, history)
        shutil.rmtree(unfinished)
