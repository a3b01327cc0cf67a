"""Record the lengths of prompts and of SFT 1's responses in the mini world, for ppo_step.py.

python benchmarks/record_lengths.py checkpoints/mini/sft/llama-mini/1 data/mini/world/rl_prompts.jsonl
"""

import json
import sys
from pathlib import Path

from salsa.checkpoints.loading import load_causal, load_tokenizer, render
from salsa.data.rows import conversation
from salsa.models.sampling import sample
from salsa.runtime.jsonl import read_jsonl

COUNT, NEW_TOKENS = 512, 48

if __name__ == "__main__":
    folder, rows = Path(sys.argv[1]), read_jsonl(Path(sys.argv[2]))[:COUNT]
    model, tokenizer = load_causal(folder), load_tokenizer(folder)
    prompts = [render(tokenizer, conversation(row), add_generation_prompt=True) for row in rows]
    eos, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    answers = sample(model, prompts, [1.0] * len(prompts), NEW_TOKENS, list(range(len(prompts))), [eos], pad)
    pairs = [[len(prompt), len(answer.token_ids)] for prompt, answer in zip(prompts, answers, strict=True)]
    (Path(__file__).parent / "mini_lengths.json").write_text(json.dumps(pairs) + "\n")
