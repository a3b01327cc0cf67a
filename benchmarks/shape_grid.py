"""Run one cell of the paper's grid at a real model's shape, with random weights and few steps: seconds and memory.

    python benchmarks/shape_grid.py --shape google/gemma-2b --device h200 --folder FOLDER
    python benchmarks/shape_grid.py --shape google/gemma-2b --layers 1 --rows 16 --tokens 64 --batch 4 --folder FOLDER
                                                                                 on a CPU, with 22 GB of memory

The settings are those of config/paper.yaml except for the numbers of rows, steps and tokens. SFT 1 and 2, their soup,
the reward model, SALSA, its answers by transformers and their scores run one after the other. The output compares them
with `salsa plan` for the same config. Random weights never give EOS, so all answers have the full length.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).parent))
from random_model import CONFIGS, make, write_rows

ROOT = Path(__file__).parents[1]


def config(folder: Path, tokens: int, batch: int, frozen: str) -> dict[str, Any]:
    """config/paper.yaml with a model and rows of `folder`, whose dialogues have so many tokens.

    `frozen`: where PPO's frozen models stay.
    """
    grid = yaml.safe_load((ROOT / "config/paper.yaml").read_text())
    template = folder / "base/chat_template.jinja"
    local = {"path": str(folder / "base"), "chat_template": str(template), "pad_token": "<pad>"}

    def named(file: str, **keys: Any) -> dict[str, Any]:
        return {"path": str(folder / "rows" / f"{file}.jsonl"), **keys}

    grid |= {"grid": "shape", "models": {"model": {"local": local}}, "rl_seeds": [1]}
    del grid["assumptions"]
    few = {"batch_size": batch, "max_length": 2 * tokens}
    # Here and below: micro-batches, checkpointing and rollouts of the runs that docs/benchmarks.md records.
    grid["sft"] |= {**few, "micro_batch_size": 4, "gradient_checkpointing": True}
    grid["sft"] |= {"train": named("sft"), "test": named("sft", limit=batch)}
    grid["reward"] |= {**few, "train": named("prefs"), "test": named("prefs", limit=batch)}
    grid["reward"] |= {"normalisation_prompts": named("prompts"), "normalisation_samples": batch}
    grid["reward"] |= {"max_new_tokens": tokens // 4}
    grid["ppo"] |= {"prompts": named("prompts"), "steps": 2, "rollout_batch_size": 4 * batch, "train_batch_size": batch}
    grid["ppo"] |= {"max_prompt_length": tokens, "max_new_tokens": tokens // 4, "frozen_models": frozen}
    grid["ppo"] |= {"rollout": "transformers", "micro_batch_size": 4, "sampling_batch_size": 32}
    grid["ppo"] |= {"micro_batch_tokens": 8192, "gradient_checkpointing": True}
    asked = {"kind": "mt_bench", "questions": named("questions"), "max_new_tokens": tokens // 4}
    grid["benchmarks"] = {"mt_bench": asked}
    grid["generate"] |= {"engine": "transformers", "batch_size": batch}
    grid["alpha"] |= {"prompts": named("prompts"), "samples": batch, "max_new_tokens": tokens // 4, "also": []}
    return grid


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=CONFIGS, required=True)
    parser.add_argument("--layers", type=int, help="number of layers (default: all)")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=1024, help="tokens per dialogue")
    parser.add_argument("--batch", type=int, default=16, help="training batch; a rollout is four of them")
    parser.add_argument("--device", default="cpu", help="a device of salsa plan")
    parser.add_argument("--folder", type=Path, required=True)
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    write_rows(folder / "rows", arguments.rows, arguments.tokens)
    make(arguments.shape, folder / "base", arguments.layers)
    grid = config(folder, arguments.tokens, arguments.batch, frozen="disk" if arguments.device == "cpu" else "device")
    (folder / "shape.yaml").write_text(yaml.safe_dump(grid))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    snakemake = [sys.executable, "-m", "snakemake", "results/shape/scores/model/salsa-s1/mt_bench.jsonl"]
    snakemake += ["--snakefile", str(ROOT / "Snakefile"), "--workflow-profile", str(ROOT / "profiles/default")]
    snakemake += ["--cores", "1", "--configfile", "shape.yaml"]
    status = subprocess.run(snakemake, cwd=folder, env=environment).returncode
    table = [sys.executable, str(ROOT / "benchmarks/planned.py"), "--config", str(folder / "shape.yaml")]
    table += ["--folder", str(folder), "--device", arguments.device, "--count", "1"]
    subprocess.run(table, env=environment)
    sys.exit(status)


if __name__ == "__main__":
    main()
