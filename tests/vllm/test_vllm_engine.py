"""The vLLM engine compared with the transformers engine."""

COMPARE = """
import sys
from pathlib import Path
from eval.generation.engines import eos_ids, generate_all, load_engine
from salsa.checkpoints.loading import load_tokenizer, render
from salsa.config.sections import GenerateSettings

first, second = map(Path, sys.argv[1:])
tokenizer = load_tokenizer(first)
texts = ["hi", "What is three plus four?", "List the days of the week, please. " * 3, "Name the colour of grass."]
prompts = [render(tokenizer, [{"role": "user", "content": f"{texts[i % 4]} {i}"}], True) for i in range(24)]
# Prompts are read in several steps, and there is no room for the answers to all at once: some have to wait, half done.
small = {"max_num_batched_tokens": 256, "block_size": 32, "kv_cache_memory_bytes": 250_000}
settings = [GenerateSettings(), GenerateSettings(engine="vllm", vllm=small)]
engines = [load_engine(first, tokenizer, each) for each in settings]
answers = []
for path in (first, second, first):
    for engine in engines:
        engine.swap(path, eos_ids(path, tokenizer))
        answers.append(generate_all(engine, prompts, [0.0] * 24, 24, list(range(24))))
    assert answers[-1] == answers[-2], answers[-2:]
    assert {answer.ended for answer in answers[-1]} == {True, False}
assert answers[1] == answers[5] != answers[3]

vllm, temperatures, seeds = engines[1], [0.0, 0.7, 1.0, 1.3] * 6, list(range(24))
drawn = []
for size in (1, 5, 24):
    vllm.at_once = size
    drawn.append(generate_all(vllm, prompts, temperatures, 24, seeds))
drawn.append(generate_all(vllm, prompts[::-1], temperatures[::-1], 24, seeds[::-1])[::-1])
assert drawn[0] == drawn[1] == drawn[2] == drawn[3]
assert generate_all(vllm, prompts, temperatures, 24, [seed + 1 for seed in seeds]) != drawn[0]
"""


def test_greedy_answers_equal_transformers_and_samples_do_not_depend_on_the_batch(checkpoints, python):
    """Before and after swaps inside the running engine; batches of 1, 5 and 24, forward and reversed."""
    python("-c", COMPARE, *checkpoints)
