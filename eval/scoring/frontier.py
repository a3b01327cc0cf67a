"""Stage `frontier`: measure policies, and the checkpoints that they kept on their way, on held-out prompts.

Output, one line per checkpoint: {policy, steps, reward, reward_se, reward_held_out, …, gold, gold_se, kl_sft, tokens,
samples}. `steps` is null at the end of training. The first line is SFT 1 (policy null, KL 0). If some policies were
trained against other rewards, `reward_trained_on` is the reward that the policy was trained against.
"""

import argparse
import json
from pathlib import Path

from eval.scoring.probe import Probe
from salsa.checkpoints.saving import kept_checkpoints
from salsa.config.sections import Alpha
from salsa.runtime.jsonl import write_jsonl
from salsa.runtime.log import log
from salsa.runtime.outputs import output_file
from salsa.runtime.provenance import Run
from salsa.runtime.settings import load_settings

TRAINED_ON = "reward_trained_on"


def run(arguments: argparse.Namespace) -> None:
    settings = load_settings(arguments.settings, Alpha)
    policies = arguments.policy
    rewards = {"reward": arguments.reward}
    rewards |= {"reward_held_out": arguments.held_out_reward} if arguments.held_out_reward else {}
    trained_on = dict(arguments.trained_on)
    inputs = {**policies, "sft": arguments.sft, **rewards}
    inputs |= {f"trained_on {name}": folder for name, folder in trained_on.items()}
    inputs |= {"prompts": Path(settings.prompts.path)} if settings.prompts.path else {}
    recorded = {**json.loads(settings.model_dump_json()), "gold": arguments.gold}
    provenance = Run("frontier", recorded, inputs, {"seed": arguments.seed, "run": arguments.run})
    seed, run_name = arguments.seed, arguments.run
    probe = Probe(arguments.sft, rewards, settings, None, arguments.gold, seed, arguments.prepared, run_name)
    provenance.extra = {"data": probe.counts}
    checkpoints: list[tuple[str | None, int | None, Path]] = [(None, None, arguments.sft)]
    for name, folder in policies.items():
        checkpoints += [(name, steps, path) for steps, path in kept_checkpoints(folder).items()]
        checkpoints.append((name, None, folder))
    rows = []
    for policy, steps, path in checkpoints:
        figures = probe.measure(path, {TRAINED_ON: trained_on[policy]} if policy in trained_on else {})
        if trained_on and policy is not None and policy not in trained_on:
            figures |= {TRAINED_ON: figures["reward"], f"{TRAINED_ON}_se": figures["reward_se"]}
        rows.append({"policy": policy, "steps": steps, **figures})
        log.info("%s: reward %.3f, KL to SFT 1 %.3f", path, rows[-1]["reward"], rows[-1]["kl_sft"])
    with output_file(arguments.out, provenance) as out:
        write_jsonl(out, rows)
