"""Tiny real checkpoints that many tests share: the mini world's tokenizer and architectures, with random weights."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import SHARED_DATA

SENTENCES = [
    "Say hello to Ada and be polite.",
    "What is three plus four? It is seven.",
    "Name the colour of grass. The grass is green.",
    "List the days of the week, please. Monday, Tuesday, Wednesday.",
]


@pytest.fixture(scope="session", autouse=True)
def prepared(tmp_path_factory) -> Iterator[Path]:
    """A cache of token ids for the tests."""

    from salsa.data import training_sets

    folder = tmp_path_factory.mktemp("prepared")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_sets, "PREPARED", folder)
        yield folder


@pytest.fixture(scope="session")
def tokenizer_of_sentences():
    """A tokenizer with a chat template and a pad token."""
    from salsa.world.tokenizer import train_tokenizer

    return train_tokenizer(SENTENCES * 4, 300)


@pytest.fixture(scope="session")
def make_checkpoint(tokenizer_of_sentences) -> Callable[..., Path]:
    """make_checkpoint(folder, architecture="llama", seed=0, reward=False, scale=1, tied=False, **WorldModel keys)."""
    import torch
    from transformers import LlamaForSequenceClassification

    from salsa.config.sections import WorldModel
    from salsa.supervised.base import build

    def make(
        folder: Path,
        architecture: str = "llama",
        seed: int = 0,
        reward: bool = False,
        scale: float = 1,
        tied: bool = False,
        **keys,
    ) -> Path:
        sizes = {
            "hidden_size": 32,
            "intermediate_size": 64,
            "layers": 2,
            "heads": 2,
            "key_value_heads": 1,
            "head_size": 32,
        }
        model = WorldModel(architecture=architecture, **{**sizes, "max_positions": 256, **keys})
        torch.manual_seed(seed)
        network = build(model, tokenizer_of_sentences)
        if tied:
            network.config.tie_word_embeddings = True
            network.lm_head.weight = network.get_input_embeddings().weight
        if reward:
            network.config.num_labels = 1
            network = LlamaForSequenceClassification(network.config)
        with torch.no_grad():
            for parameter in network.parameters():
                # Weights at their usual scale give nearly uniform distributions: every answer would be noise.
                parameter.mul_(scale if parameter.dim() > 1 else 1)
        network.save_pretrained(folder)
        tokenizer_of_sentences.save_pretrained(folder)
        if reward:
            config = json.loads((folder / "config.json").read_text())
            (folder / "config.json").write_text(json.dumps({**config, "reward_mean": 0.5, "reward_std": 2.0}))
        return folder

    return make


@pytest.fixture(scope="session")
def llamas(make_checkpoint, tmp_path_factory) -> list[Path]:
    """Two Llama checkpoints that differ only in their weights."""
    folder = tmp_path_factory.mktemp("llamas")
    return [make_checkpoint(folder / str(seed), seed=seed, scale=6) for seed in (1, 2)]


@pytest.fixture(scope="session")
def reward_model(make_checkpoint, tmp_path_factory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("reward") / "rm", seed=3, reward=True, scale=6)


@pytest.fixture(scope="session")
def prompts_file(tmp_path_factory) -> Path:
    """A file of 24 prompts."""
    from salsa.runtime.jsonl import write_jsonl

    path = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    texts = ["hi", "Name the colour of grass.", "What is three plus four?", "List the days of the week, please."]
    write_jsonl(path, [{"prompt_id": str(i), "prompt": f"{texts[i % 4]} {i}"} for i in range(24)])
    return path


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real MT-Bench and Arena-Hard files."""
    if not SHARED_DATA.is_dir():
        pytest.skip("no real benchmark files in shared/data beside the project")
    return SHARED_DATA


@pytest.fixture
def command(monkeypatch, capsys):
    """command("eval", "judge", *arguments) -> (exit status, standard error), as a user sees them."""
    import importlib
    import sys

    from salsa.runtime.command import main

    def run(program: str, *arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", [program, *map(str, arguments)])
        status = main(program, importlib.import_module(f"{program}.__main__").COMMANDS)
        return status, capsys.readouterr().err

    return run
