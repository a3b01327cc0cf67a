"""The paper's models at their real widths: vLLM's configuration, and its answers."""

import json
from pathlib import Path

import pytest

from benchmarks.random_model import config_of, make, tokenizer_of_words, with_tokens
from eval.costs.assumed import assumed
from salsa.config.config import load_config

ROOT = Path(__file__).parents[2]
PAPER = load_config(ROOT / "config/paper.yaml")
SHAPES = [model.hub.id for model in PAPER.models.values()]

CONFIGURE = """
import json, sys
from vllm.config import ParallelConfig
from vllm.engine.arg_utils import EngineArgs

model = EngineArgs(model=sys.argv[1], dtype="bfloat16", trust_remote_code=False).create_model_config()
found = {
    "architecture": model.architecture,
    "layers": model.get_num_layers(ParallelConfig()),
    "hidden_size": model.get_hidden_size(),
    "vocabulary": model.get_vocab_size(),
    "head_size": model.get_head_size(),
    "key_value_heads": model.get_total_num_kv_heads(),
    "positions": model.max_model_len,
    "window": model.get_sliding_window(),
}
json.dump(found, open(sys.argv[2], "w"))
"""


@pytest.mark.parametrize("name", SHAPES)
def test_vllm_reads_a_full_shape_like_the_plan(name, python, tmp_path):
    tokenizer, shape = tokenizer_of_words(), assumed().models[name]
    config = with_tokens(config_of(name), tokenizer)
    config.architectures = [f"{config.model_type.title()}ForCausalLM"]
    config.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    python("-c", CONFIGURE, tmp_path, tmp_path / "found.json")
    assert json.loads((tmp_path / "found.json").read_text()) == {
        "architecture": config.architectures[0],
        "layers": shape.layers,
        "hidden_size": shape.hidden_size,
        "vocabulary": shape.vocabulary,
        "head_size": shape.head_size,
        "key_value_heads": shape.key_value_heads,
        "positions": config.max_position_embeddings,
        "window": getattr(config, "sliding_window", None),
    }


ANSWER = """
import sys
from pathlib import Path
from eval.generation.engines import eos_ids, load_engine
from salsa.checkpoints.loading import load_tokenizer
from salsa.config.sections import GenerateSettings

path = Path(sys.argv[1])
tokenizer = load_tokenizer(path)
prompts = [list(range(10 * i + 7, 10 * i + 7 + length)) for i, length in enumerate((3, 40, 17, 200))]
small = {"max_model_len": 512, "kv_cache_memory_bytes": 64 << 20}
answers = []
for settings in (GenerateSettings(), GenerateSettings(engine="vllm", vllm=small)):
    engine = load_engine(path, tokenizer, settings)
    answers.append(engine.generate(prompts, [0.0] * 4, 12, [1] * 4))
    del engine
assert answers[0] == answers[1], answers
assert len({tuple(answer.token_ids) for answer in answers[0]}) == 4, answers
"""


@pytest.mark.parametrize("name", SHAPES)
def test_vllm_answers_like_transformers_at_the_real_width(name, python, tmp_path):
    """One layer in float32, with the real vocabulary, heads and MLP."""
    make(name, tmp_path, layers=1)
    python("-c", ANSWER, tmp_path)
