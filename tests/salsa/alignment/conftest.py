import json
import sys

import pytest

from salsa.runtime.command import main
from salsa.runtime.jsonl import read_jsonl
from tests.salsa.alignment.small_run import COMMANDS, settings


@pytest.fixture
def align(llamas, reward_model, prompts_file, tmp_path, monkeypatch):
    """align(name, reference, **settings) -> metrics, if its exit status is 0. The policy is in tmp_path/name."""

    def run(name: str, *references, init=llamas[0], strategy=None, options=(), status=0, **keys) -> list[dict]:
        arguments = f"salsa align --init {init} --sft {llamas[0]} --reward {reward_model}".split()
        arguments += ["--reference", *map(str, references)]
        arguments += [
            *(["--strategy", json.dumps(strategy)] if strategy else []),
            "--settings",
            json.dumps(settings(prompts_file, **keys)),
            "--seed",
            "1",
            "--rl-seed",
            "1",
            "--gold",
        ]
        arguments += map(str, options)
        arguments += ["--out", str(tmp_path / name), "--metrics", str(tmp_path / f"{name}.jsonl")]
        monkeypatch.setattr(sys, "argv", arguments)
        assert main("salsa", COMMANDS) == status
        return read_jsonl(tmp_path / f"{name}.jsonl") if status == 0 else []

    return run
