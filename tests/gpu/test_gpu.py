"""What only a GPU can show: `make test-gpu`, 5 minutes on one.

The same stages on tiny models. Each process of a stage uses the GPU that it sees; CUDA_VISIBLE_DEVICES="" hides it.
"""

import json
import os
import subprocess
import sys

import pytest
import torch
import yaml
from safetensors.torch import load_file

from benchmarks.stages import stages
from salsa.runtime.jsonl import read_jsonl
from tests.salsa.alignment.small_run import settings
from tests.workflow.running import ROOT, snakemake

HALF = {"dtype": "bfloat16", "gradient_checkpointing": True}
METHODS = ("ppo", "salsa")


@pytest.fixture(autouse=True, scope="session")
def gpu() -> str:
    if not torch.cuda.is_available():
        pytest.exit("make test-gpu: no GPU here that torch sees", 1)
    return torch.cuda.get_device_name()


@pytest.fixture
def align(llamas, reward_model, prompts_file, tmp_path):
    """align(name, launcher, visible, **settings) -> metrics of a PPO run, and its weights."""

    def run(name: str, *launcher: str, visible: str = "0", **keys) -> tuple[list[dict], dict[str, torch.Tensor]]:
        out = [
            "--out",
            tmp_path / name,
            "--settings",
            json.dumps(settings(prompts_file, **keys)),
            "--seed",
            1,
            "--gold",
        ]
        models = ["--init", llamas[0], "--reference", llamas[1], "--sft", llamas[0], "--reward", reward_model]
        program = [sys.executable, *launcher, "-m", "salsa", "align", *models, *out]
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": visible}
        done = subprocess.run(list(map(str, program)), capture_output=True, text=True, env=environment, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        record = json.loads((tmp_path / name / "run.json").read_text())
        assert record["device"].startswith("cpu") != bool(visible)
        return read_jsonl(tmp_path / f"{name}.jsonl"), load_file(tmp_path / name / "model.safetensors")

    return run


def launched(profile: str) -> list[str]:
    path = ROOT / "profiles/accelerate" / profile
    return ["-m", "accelerate.commands.launch", "--config_file", str(path), "--num_processes", "1"]


def assert_alike(found, expected, tolerance: float) -> None:
    for row, other in zip(found[0], expected[0], strict=True):
        assert row == pytest.approx(other, rel=100 * tolerance, abs=tolerance)
    assert found[1].keys() == expected[1].keys()
    for name, weight in found[1].items():
        assert torch.allclose(weight, expected[1][name], rtol=0, atol=tolerance), name


def test_ppo_on_a_gpu_equals_ppo_on_a_cpu(align):
    """In float32, within rounding: both draw the same random numbers."""
    assert_alike(align("gpu"), align("cpu", visible=""), 1e-4)


@pytest.mark.parametrize("profile", ["ddp.yaml", "fsdp2.yaml"])
def test_launcher_changes_nothing(align, profile):
    assert_alike(align("launched", *launched(profile)), align("alone"), 1e-4)


def test_smoke_grid_in_bfloat16(tmp_path, gpu):
    """All stages, with the dtypes and checkpointing of the paper's grid."""
    config = yaml.safe_load((ROOT / "config/smoke.yaml").read_text())
    for section in ("sft", "reward", "ppo"):
        config[section] |= HALF
    for section in ("generate", "score", "alpha"):
        config[section] = {**config.get(section, {}), "dtype": "bfloat16"}
    (tmp_path / "smoke.yaml").write_text(yaml.safe_dump(config))
    status, said = snakemake(tmp_path, "--cores", str(os.cpu_count()), config=(tmp_path / "smoke.yaml",))
    assert status == 0, said
    records = stages(tmp_path)
    for stage in ("sft", "reward", "align", "generate", "score", "alpha"):
        assert all(record["device"] == gpu and record["peak_device_memory_mb"] > 1 for record in records[stage]), stage
    for method in METHODS:
        for step in read_jsonl(tmp_path / f"results/smoke/training/llama-mini/{method}-s1.jsonl"):
            assert 0 < step["sampler_gap"] < 0.05
    assert "salsa" in (tmp_path / "results/smoke/tables/win_rates.md").read_text()
