"""PPO with two processes gives the losses and the checkpoint of one process, within the rounding of sums."""

import json
import signal
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.checkpoint import FileSystemReader

from salsa.runtime.errors import RESUBMIT
from salsa.runtime.jsonl import read_jsonl
from tests.salsa.alignment.small_run import GROUPED, settings
from tests.salsa.launched import PROCESSES, Launched, ended

EMA = json.dumps({"ema": {"rate": 0.1}})
ZERO = ["zero3.yaml"] if find_spec("deepspeed") else []  # make test-deepspeed
VLLM = [("fsdp2.yaml", {PROCESSES}, None, "vllm")] if find_spec("vllm") else []  # make test-vllm


@pytest.fixture
def words(llamas, reward_model, prompts_file, tmp_path):
    """words(name, *options, **settings): the arguments of a run."""

    def made(name: str, *options, **keys) -> list[object]:
        given = json.dumps(settings(prompts_file, **keys))
        models = ["--init", llamas[0], "--reference", llamas[1], "--sft", llamas[0], "--reward", reward_model]
        return [*models, "--out", tmp_path / name, "--settings", given, "--seed", 1, "--gold", *options]

    return made


@pytest.fixture
def start(launch, words):
    """start(name, profile, *options, **settings) -> its processes."""

    def run(name: str, profile: str | None, *options, **keys) -> list[Launched]:
        return launch(profile, "align", *words(name, *options, **keys))

    return run


@pytest.fixture
def in_this_process(command, words):
    """in_this_process(name, *options, **settings): a run that needs no process of its own."""

    def run(name: str, *options, **keys) -> None:
        status, said = command("salsa", "align", *words(name, *options, **keys))
        assert status == 0, said

    return run


def assert_alike(tmp_path: Path, name: str, other: str) -> None:
    rows, others = (read_jsonl(tmp_path / f"{run}.jsonl") for run in (name, other))
    assert len(rows) == len(others)
    for row, expected in zip(rows, others, strict=True):
        assert row == pytest.approx(expected, rel=1e-4, abs=1e-5)
    weights, expected = (load_file(next((tmp_path / run).glob("*model.safetensors"))) for run in (name, other))
    assert weights.keys() == expected.keys()
    for key, weight in weights.items():
        assert torch.allclose(weight, expected[key], rtol=0, atol=1e-5), key


def shards(state: Path) -> set[int]:
    """Number of pieces of the policy's matrices in a stored state."""
    everything = FileSystemReader(state).read_metadata().state_dict_metadata
    return {
        len(entry.chunks)
        for name, entry in everything.items()
        if name.startswith("policy.model.") and len(entry.size) == 2
    }


@pytest.mark.parametrize("profile", ["ddp.yaml", "fsdp2.yaml", *ZERO])
def test_two_processes_train_like_one(start, words, in_this_process, tmp_path, profile):
    """With a moving reference, for which every process needs the whole policy; under DDP with LoRA and GRPO, too."""
    in_this_process("one", "--strategy", EMA, steps=3, micro_batch_size=3)
    run = {"steps": 3, "micro_batch_tokens": 60, "lora": {"rank": 2}}
    grpo = ("--algorithm", "grpo", "--strategy", EMA)
    more = (
        *("++", "align", *words("two-lora", "--strategy", EMA, **run)),
        *("++", "align", *words("two-grpo", *grpo, micro_batch_tokens=60, **GROUPED)),
    )
    more = more if profile == "ddp.yaml" else ()
    # By tokens each process has fewer passes than responses, and as many as the other.
    ended(start("two", profile, "--strategy", EMA, *more, steps=3, micro_batch_tokens=60))
    assert_alike(tmp_path, "two", "one")
    if more:
        in_this_process("one-lora", "--strategy", EMA, steps=3, lora={"rank": 2})
        assert_alike(tmp_path, "two-lora", "one-lora")
        in_this_process("one-grpo", *grpo, **GROUPED)
        assert_alike(tmp_path, "two-grpo", "one-grpo")
    assert json.loads((tmp_path / "two/run.json").read_text())["processes"] == PROCESSES


@pytest.mark.parametrize(
    ("profile", "pieces", "afterwards", "rollout"),
    [
        ("ddp.yaml", {1}, None, "transformers"),
        ("fsdp2.yaml", {PROCESSES}, None, "transformers"),
        *((name, set(), name, "transformers") for name in ZERO),
        *VLLM,
    ],
)
def test_two_processes_stop_together_and_resume(start, in_this_process, tmp_path, profile, pieces, afterwards, rollout):
    """SIGTERM reaches one of them. DDP's and FSDP's states fit any number of processes, ZeRO-3's only as many."""
    if rollout == "transformers":
        in_this_process("one", steps=6)
    else:
        ended(start("one", None, steps=6, rollout=rollout))
    both = start("two", profile, steps=6, rollout=rollout)
    while not any(path.read_bytes().count(b"\n") == 2 for path in (tmp_path / "two.training").glob("*/metrics.jsonl")):
        assert both[0].process.is_alive(), both[0].said
        time.sleep(0.005)
    both[1].signal(signal.SIGTERM)
    main, other = ended(both, RESUBMIT)
    assert " salsa: ppo 1/6 " in main and " salsa: ppo 1/6 " not in other
    [state] = (tmp_path / "two.training").glob("*/step-*")
    assert shards(state) == pieces
    said, *_ = ended(start("two", afterwards, steps=6, rollout=rollout))
    assert "ppo: resuming after" in said
    assert_alike(tmp_path, "two", "one")


def test_incompatible_options_are_named(start, words, monkeypatch):
    for said in ended(start("odd", "ddp.yaml", "++", "align", *words("far", max_kl=1e-9), train_batch_size=1), 1):
        assert "error: ppo.train_batch_size: 1 is not a multiple of the 2 processes: change" in said
        assert "error: ppo: step 0: the KL to the reference is" in said
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    [said] = ended(start("mixed", None), 1)
    assert "error: accelerate: mixed_precision is bf16: set it to no" in said
