"""What the project's draws cost vLLM for each token, counted without a GPU.

    .venv-vllm/bin/python benchmarks/drawing.py [--rows 512] [--vocabulary 256000]

The host's work is timed with a tiny vocabulary, where arithmetic takes no time; it includes starting each operation.
The device's work is counted: bytes read and written, and the time that an H200 takes to move them.
"""

import argparse
import statistics
import time
from types import SimpleNamespace

import torch
from vllm.v1.sample.logits_processor import BatchUpdate

from salsa.models.vllm_draws import Draws
from salsa.models.vllm_worker import NUMBER

H200 = 4.8e12  # bytes per second of its memory, by its data sheet
PASSES = 6  # over the logits, each in float32 (tests/eval/generation/test_generate.py counts them)
TOKENS = 512


def full_batch(rows: int) -> tuple[Draws, list[list[int]]]:
    """Draws for a batch of so many requests, and the lists of their tokens."""
    draws = Draws(None, torch.device("cpu"), False)
    draws.begin(range(rows), [0.7] * rows, TOKENS)
    tokens: list[list[int]] = [[] for _ in range(rows)]
    requests = [SimpleNamespace(extra_args={NUMBER: row}) for row in range(rows)]
    added = [(row, requests[row], None, tokens[row]) for row in range(rows)]
    draws.update_state(BatchUpdate(batch_size=rows, removed=[], added=added, moved=[]))  # type: ignore[arg-type]
    return draws, tokens


def host_seconds(rows: int) -> float:
    """Median seconds of a token for the whole batch."""
    draws, tokens = full_batch(rows)
    spent = []
    for _ in range(TOKENS):
        logits = torch.zeros(rows, 2)
        begin = time.perf_counter()
        draws.update_state(None)
        draws.apply(logits)
        spent.append(time.perf_counter() - begin)
        for row in tokens:
            row.append(0)
    return statistics.median(spent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--vocabulary", type=int, default=256_000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    host = host_seconds(arguments.rows)
    moved = PASSES * 4 * arguments.rows * arguments.vocabulary
    print(f"{arguments.rows} requests, {arguments.vocabulary} tokens in the vocabulary, per token:")
    print(f"host: {host * 1e3:.2f} ms, of which the device sees one copy of {8 * arguments.rows} bytes")
    print(f"device: {moved / 1e9:.1f} GB read and written, {moved / H200 * 1e3:.2f} ms on an H200")
    print(f"{TOKENS} tokens: {TOKENS * host:.2f} s on the host, {TOKENS * moved / H200:.2f} s on the device")


if __name__ == "__main__":
    main()
