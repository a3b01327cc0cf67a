"""Pass checkpoints of the real models' full shapes, with random weights, through everything but training.

    python benchmarks/large_checkpoints.py --folder FOLDER [--shape google/gemma-2b]

For each shape: a checkpoint in shards as on the hub; the stage `base`, which links to the shards and adds the chat
template; transformers' loading; the reward model made from it, saved, and loaded again. All in bfloat16. A 7B shape
takes 27 GB of FOLDER and 14 GB of memory. The exit status is 1 if a tensor is lost, changed or renamed.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from random_model import CONFIGS, config_of
from random_shards import make_checkpoint
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from salsa.checkpoints.loading import load_reward, load_tokenizer
from salsa.checkpoints.saving import save
from salsa.checkpoints.shards import Tensor, read_tensors
from salsa.models.scoring import new_head

ROOT = Path(__file__).parents[1]
SHAPES = [name for name in CONFIGS if "SmolLM2" not in name]
HEAD = "score.weight"
LOADED = {"dtype": torch.bfloat16, "output_loading_info": True}


def timed(what: Callable[[], Any]) -> tuple[Any, float]:
    begin = time.perf_counter()
    return what(), time.perf_counter() - begin


def bytes_of(tensor: Tensor) -> np.ndarray:
    return np.memmap(tensor.file, np.uint8, "r", tensor.start, (tensor.size,))


def off_keys(auto: Any, folder: Path, **options: Any) -> tuple[dict[str, list[str]], float]:
    """Missing and unexpected keys according to transformers, and the seconds that loading took."""
    (_, info), seconds = timed(lambda: auto.from_pretrained(folder, **LOADED, **options))
    return {kind: sorted(map(str, names)) for kind, names in info.items() if names}, seconds


def convert(base: Path, reward: Path) -> tuple[float, float]:
    """Make and save the untrained reward model; returns the seconds of both."""
    model, loading = timed(lambda: load_reward(base, "bfloat16"))
    new_head(model, torch.Generator().manual_seed(1))
    _, saving = timed(lambda: save(model, load_tokenizer(base), reward, "bfloat16"))
    return loading, saving


def faults(base: Path, reward: Path) -> list[str]:
    """Differences between the reward model's tensors and the base's, except for the heads."""
    theirs, mine = read_tensors(base), read_tensors(reward)
    body = set(theirs) - {"lm_head.weight"}
    found = [f"{name}: in one alone" for name in sorted(body ^ (set(mine) - {HEAD}))]
    kept = sorted(body & set(mine))
    found += [f"{name}: changed" for name in kept if not np.array_equal(bytes_of(theirs[name]), bytes_of(mine[name]))]
    if HEAD not in mine or mine[HEAD].shape[0] != 1:
        found.append(f"{HEAD}: no head of one output")
    return found


def adopt(hub: Path, base: Path) -> None:
    """Run the stage `base` on a folder."""
    template = ROOT / "config/chat_templates/turns.jinja"
    local = {"path": str(hub), "chat_template": str(template), "pad_token": "<pad>"}
    given = [
        "--settings",
        json.dumps({"model": {"local": local}}),
        "--model",
        "model",
        "--seed",
        "1",
        "--out",
        str(base),
    ]
    subprocess.run([sys.executable, "-m", "salsa", "base", *given], check=True, cwd=ROOT)


def measure(shape: str, folder: Path) -> int:
    config, (hub, base, reward) = config_of(shape), (folder / name for name in ("hub", "base", "reward"))
    _, writing = timed(lambda: make_checkpoint(config, hub, 1))
    shards = ", ".join(f"{file.stat().st_size / 1e9:.2f}" for file in sorted(hub.glob("*.safetensors")))
    _, adopting = timed(lambda: adopt(hub, base))
    print(f"{shape}: shards of {shards} GB, written in {writing:.0f} s; base {adopting:.1f} s")
    causal, seconds = off_keys(AutoModelForCausalLM, base)
    print(f"  as a language model: {seconds:.1f} s; {causal or 'no key is off'}")
    scalar, seconds = off_keys(AutoModelForSequenceClassification, base, num_labels=1)
    print(f"  as a reward model: {seconds:.1f} s; {scalar}")
    making, saving = convert(base, reward)
    again, seconds = off_keys(AutoModelForSequenceClassification, reward)
    print(f"  made in {making:.1f} s, saved in {saving:.1f} s; again: {seconds:.1f} s; {again or 'no key is off'}")
    found = faults(base, reward)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"  its body: {'; '.join(found) or 'byte for byte the base'}; peak memory {peak:.1f} GB", flush=True)
    dropped = {} if config.tie_word_embeddings else {"unexpected_keys": ["lm_head.weight"]}
    return int(bool(causal or again or found) or scalar != {"missing_keys": [HEAD], **dropped})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--shape", choices=SHAPES, help="this one alone (default: all, in processes of their own)")
    arguments = parser.parse_args()
    if arguments.shape is None:
        commands = [[sys.executable, __file__, "--folder", str(arguments.folder), "--shape", shape] for shape in SHAPES]
        return max([subprocess.run(command).returncode for command in commands])
    folder = arguments.folder.resolve() / arguments.shape.replace("/", "--")
    try:
        return measure(arguments.shape, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
