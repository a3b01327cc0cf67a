"""Samples per second of whole PPO updates: salsa/algorithms/ppo.py and TRL 1.11's PPOTrainer, in turns.

    make bench-ppo                                            both, on the CPU's shapes
    python benchmarks/ppo_step.py --shape mini                --shape smollm2-135m, gemma-2b (a GPU, 106 GB)
    python benchmarks/ppo_step.py --shape mini --ours         without TRL
    python benchmarks/ppo_step.py --shape mini --vllm         ours with vLLM's rollouts, too (make vllm-cpu)

An update is a rollout with scoring and training. All get equal shapes, prompts, response lengths, batch and epochs
(ppo_shapes.py). A rollout of vLLM's includes the transfer of the weights. The first update is a warm-up; the result is
the median of the others.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
from ppo_memory import peak_bytes
from ppo_shapes import EOS, PAD, SHAPES, build, force, work

HERE = Path(__file__).parent
OFF = 1.25  # how far the memory that is measured may be from the formula
PARTS = ("generation", "scoring", "training")


class Ending:
    """A model whose responses end where ppo_shapes says. Ended rows leave the batch; the others keep their order."""

    def __init__(self, model: torch.nn.Module, lengths: list[int]):
        self.model, self.lengths, self.step = model, lengths, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def __call__(self, **inputs: Any) -> Any:
        output = self.model(**inputs)
        self.step += 1
        running = torch.tensor([length for length in self.lengths if length >= self.step])
        output.logits = force(output.logits[:, -1], (running == self.step).to(output.logits.device))[:, None]
        return output


def force_lengths(engine: Any, lengths: Callable[[], list[int]]) -> None:
    """Let a VllmEngine end each answer at its length, whatever is drawn."""
    from salsa.models.vllm_worker import NUMBER

    plain = engine.vllm.SamplingParams

    def limited(**options: Any) -> Any:
        number = options["extra_args"][NUMBER]
        return plain(**{**options, "max_tokens": lengths()[number]})

    engine.vllm, engine.eos = SimpleNamespace(SamplingParams=limited), []


def ours(name: str, updates: int, threads: int, micro: int, frozen: str, rollout: str) -> dict[str, Any]:
    from salsa.algorithms.ppo import Ppo
    from salsa.checkpoints.loading import autocast, load_causal, load_reward
    from salsa.config.algorithms import PpoSettings
    from salsa.models.frozen import FrozenOnDevice
    from salsa.models.trained import Trained
    from salsa.rollouts import samplers
    from salsa.rollouts.experience import collect
    from salsa.rollouts.models import Models, frozen_model
    from salsa.rollouts.rewards import Prompt, RewardModel

    torch.set_num_threads(threads)
    before = resident_bytes()
    shape, cuda = SHAPES[name], torch.cuda.is_available()
    half = torch.bfloat16 if shape.dtype == "bfloat16" else torch.float32
    settings = PpoSettings.model_validate(
        {
            "steps": updates,
            "rollout_batch_size": shape.batch,
            "train_batch_size": shape.batch,
            "micro_batch_size": micro,
            "epochs": shape.epochs,
            "learning_rate": 1e-6,
            "value_learning_rate": 1e-6,
            "beta": 0.05,
            "max_prompt_length": shape.max_prompt,
            "max_new_tokens": shape.new_tokens,
            "dtype": shape.dtype,
            "frozen_models": frozen,
            "rollout": rollout,
            "vllm": {"max_model_len": shape.max_prompt + shape.new_tokens} if rollout == "vllm" else {},
        }
    )
    folder = Path(tempfile.mkdtemp())
    for name, scalar, seed in (("reference", False, 2), ("reward", True, 4)):
        build(shape, scalar, seed, half).save_pretrained(folder / name)

    reference = frozen_model(load_causal, folder / "reference", settings)
    reward = frozen_model(load_reward, folder / "reward", settings)
    models = Models(
        tokenizer=SimpleNamespace(pad_token_id=PAD, eos_token_id=EOS),
        policy=Trained(build(shape, False, 1), shape.dtype),
        references=[reference],
        sft=reference,
        reward=RewardModel(reward, 0.0, 1.0),
        normalisation=(0.0, 1.0),
    )
    value = Trained(build(shape, True, 3), shape.dtype)
    algorithm = Ppo(models, value, settings)
    plain, ends, spent = samplers.sample, [], {}  # `ends` are the current rollout's lengths

    def now() -> float:
        if cuda:
            torch.cuda.synchronize()
        return time.perf_counter()

    samplers.sample = lambda model, *rest: plain(Ending(model, ends), *rest)
    sampler = samplers.load_sampler(folder / "reference", models.tokenizer, settings)
    if rollout == "vllm":
        force_lengths(sampler.engine, lambda: ends)

    def roll(*rest: Any) -> Any:
        begin = now()
        answers = sampler(*rest)
        assert [len(answer.token_ids) for answer in answers] == ends
        spent["generation"] = now() - begin
        return answers

    found = []
    for prompts, lengths in work(shape, updates):
        ends, begin = lengths, now()
        batch = collect(models, roll, [Prompt([], ids) for ids in prompts], settings, list(range(shape.batch)))
        with torch.no_grad(), autocast(settings.dtype):
            targets, _ = algorithm.targets(batch)
        middle = now()
        for _ in range(shape.epochs):
            algorithm.update(batch, targets, list(range(shape.batch)))
        spent |= {"scoring": middle - begin - spent["generation"], "training": now() - middle}
        found.append(dict(spent))
    shutil.rmtree(folder)
    peak = torch.cuda.max_memory_allocated() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    kept = [model.model for model in (reference, reward) if isinstance(model, FrozenOnDevice)]
    counts = [sum(weight.numel() for weight in model.parameters()) for model in (models.policy, value)]
    frozen = [sum(weight.nbytes for weight in model.parameters()) for model in kept]
    formula = peak_bytes(shape, updates, micro, *counts, frozen) + (0 if cuda else before)
    return {"updates": found, "peak_bytes": peak, "formula_bytes": formula}


def resident_bytes() -> int:
    """Resident memory of the process now: Python and its libraries, before any model."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def run(command: list[str], threads: int) -> dict[str, Any]:
    path = [str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": os.pathsep.join(path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: exit status {done.returncode}\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def line(who: str, runs: list[dict[str, Any]], batch: int) -> float:
    """Print the median update of all runs without each run's first; returns its samples per second."""
    updates = [update for run in runs for update in run["updates"][1:]]
    totals = [sum(update.values()) for update in updates]
    total = statistics.median(totals)
    parts = "  ".join(f"{part} {statistics.median(update[part] for update in updates):8.3f}" for part in PARTS)
    memory = max(run["peak_bytes"] for run in runs) / 1e9
    print(
        f"{who:<9}{total:9.3f} s an update ({min(totals):.3f} to {max(totals):.3f}) {batch / total:8.1f} samples/s  "
        f"{parts}  {memory:6.2f} GB"
    )
    return batch / total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="mini")
    parser.add_argument("--updates", type=int, default=6)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=2, help="number of turns of each trainer")
    parser.add_argument("--trl", default=str(HERE.parent / ".venv-trl/bin/python"), help="TRL's Python (make trl)")
    parser.add_argument("--micro", type=int, help="responses per forward pass; TRL's is the shape's (default: shape's)")
    parser.add_argument("--frozen", default="device", help="where frozen models stay: device, host, disk")
    parser.add_argument("--ours", action="store_true", help="without TRL")
    parser.add_argument("--vllm", action="store_true", help="ours with vLLM's rollouts, too")
    parser.add_argument(
        "--vllm-python", default=str(HERE.parent / ".venv-vllm/bin/python"), help="a Python with vLLM (make vllm-cpu)"
    )
    parser.add_argument("--rollout", default="transformers", help=argparse.SUPPRESS)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        micro = arguments.micro or SHAPES[arguments.shape].micro
        options = (arguments.updates, arguments.threads, micro, arguments.frozen, arguments.rollout)
        print(json.dumps(ours(arguments.shape, *options)))
        return
    shape = SHAPES[arguments.shape]
    commands = {"salsa": [sys.executable, __file__, *sys.argv[1:], "--worker"]}
    if arguments.vllm:
        worker = [__file__, *sys.argv[1:], "--worker", "--rollout", "vllm"]
        commands["with vLLM"] = [arguments.vllm_python, *worker]
    if not arguments.ours:
        theirs = [arguments.shape, str(arguments.updates), str(arguments.threads)]
        commands["TRL 1.11"] = [arguments.trl, str(HERE / "trl_step.py"), *theirs]
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in commands}
    for _ in range(arguments.rounds):
        for name, command in commands.items():
            runs[name].append(run(command, arguments.threads))
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {arguments.threads} threads"
    print(
        f"{arguments.shape}: batch {shape.batch}, {shape.epochs} epochs, up to {shape.new_tokens} new tokens; {where}; "
        f"medians of {arguments.rounds} x {arguments.updates - 1} updates, peak memory of the process"
    )
    rates = {name: line(name, found, shape.batch) for name, found in runs.items()}
    measured, formula = (max(run[key] for run in runs["salsa"]) / 1e9 for key in ("peak_bytes", "formula_bytes"))
    if "TRL 1.11" in rates:
        print(f"salsa makes {rates['salsa'] / rates['TRL 1.11']:.2f} times TRL's samples per second")
    if shape.dtype == "float32":
        print(f"peak memory by the formula: {formula:.2f} GB; measured {measured / formula:.2f} times that")
        if not 1 / OFF < measured / formula < OFF:
            raise SystemExit(
                f"the formula of ppo_memory.py is off by more than {OFF} times: correct it, or find the leak"
            )


if __name__ == "__main__":
    main()
