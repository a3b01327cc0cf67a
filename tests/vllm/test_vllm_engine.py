"""The vLLM engine compared with the transformers engine."""

COMPARE = """
import sys
from collections import Counter
from pathlib import Path
from eval.generation.engines import eos_ids, generate_all, load_engine
from salsa.checkpoints.loading import load_tokenizer, render
from salsa.config.sections import GenerateSettings
from salsa.models.vllm_draws import NUMBER, Draws

first, second, adapter = map(Path, sys.argv[1:])
tokenizer = load_tokenizer(first)
texts = ["hi", "What is three plus four?", "List the days of the week, please. " * 3, "Name the colour of grass."]
prompts = [render(tokenizer, [{"role": "user", "content": f"{texts[i % 4]} {i}"}], True) for i in range(24)]
temperatures, seeds = [0.0, 0.7, 1.0] * 8, list(range(24))

# The scheduler cuts prompts in parts, has more requests than rows, and no room for all answers: some lose their cache.
small = {"max_num_batched_tokens": 48, "max_num_seqs": 12, "block_size": 32, "kv_cache_memory_bytes": 250_000}
resumed, cut = Counter(), Counter()
plain_update, plain_apply = Draws.update_state, Draws.apply


def update_state(self, update):
    added = update.added if update else ()
    resumed.update(params.extra_args[NUMBER] for _, params, _, tokens in added if tokens)
    plain_update(self, update)


def apply(self, logits):
    cut.update(number for number, tokens in map(self.rows.get, range(len(logits))) if not tokens)
    return plain_apply(self, logits)


Draws.update_state, Draws.apply = update_state, apply
settings = [GenerateSettings(), GenerateSettings(engine="vllm", vllm=small)]
theirs, vllm = engines = [load_engine(first, tokenizer, each) for each in settings]
answers = []
for path in (first, second, adapter, first):
    for engine in engines:
        engine.swap(path, eos_ids(path, tokenizer))
    cut.clear()
    answers.append(generate_all(theirs, prompts, temperatures, 24, seeds))
    found = generate_all(vllm, prompts, temperatures, 24, seeds)
    assert found == answers[-1], [pair for pair in zip(found, answers[-1]) if pair[0] != pair[1]]
    assert {answer.ended for answer in answers[-1]} == {True, False}
    assert max(cut.values()) > 1, "no prompt was cut"
assert resumed, "no request lost its cache"
assert answers[0] == answers[3] not in answers[1:3] and answers[1] != answers[2]

for size in (1, 5):
    vllm.at_once = size
    assert generate_all(vllm, prompts, temperatures, 24, seeds) == answers[3]
assert generate_all(vllm, prompts[::-1], temperatures[::-1], 24, seeds[::-1])[::-1] == answers[3]
assert generate_all(vllm, prompts, temperatures, 24, [seed + 1 for seed in seeds]) != answers[3]
kept = vllm.generate(prompts, temperatures, 24, seeds, log_probs=True)
expected = theirs.generate(prompts, temperatures, 24, seeds)
for answer, other in zip(kept, expected, strict=True):
    assert len(answer.log_probs) == len(answer.token_ids)
    assert all(abs(a - b) < 1e-4 for a, b in zip(answer.log_probs, other.log_probs, strict=True))
"""


def test_answers_equal_transformers_at_each_temperature(checkpoints, adapter, python):
    """Token for token, before and after swaps inside the running engine, in batches of any size and order."""
    assert "Failed to load weights" not in python("-c", COMPARE, *checkpoints, adapter)
