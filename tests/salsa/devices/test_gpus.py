"""GPU locks, with simulated GPU names, and what profiles request by model size."""

import os
import re
import shlex
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from eval.checks.cluster import read_profile, resources_by_rule
from salsa.devices import gpus
from salsa.workflow.model_sizes import Sizes

ROOT = Path(__file__).parents[3]
# Says which GPUs it has, and ends when it is told to.
HOLDER = "import os, sys; print(os.environ['CUDA_VISIBLE_DEVICES'], flush=True); sys.stdin.read()"
GPU_STAGES = {"sft", "reward", "combine", "align", "dpo", "alpha", "frontier", "greedy", "generate", "score"}


@pytest.fixture(autouse=True)
def locks(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(gpus.tempfile, "tempdir", None)


@pytest.fixture
def holding():
    """holding(count, visible) -> a process that takes so many of the visible GPUs and holds them until it ends."""
    begun = []

    def start(count: int, visible: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-m", "salsa.devices.gpus", str(count), sys.executable, "-c", HOLDER],
            env={**os.environ, "CUDA_VISIBLE_DEVICES": visible},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        begun.append(process)
        return process

    yield start
    for process in begun:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def has(process: "subprocess.Popen[str]") -> list[str]:
    return process.stdout.readline().strip().split(",")


def test_gpus_are_exclusive_and_freed_by_a_kill(holding):
    first, second = holding(1, "a,b"), holding(1, "a,b")
    owned = {process: has(process) for process in (first, second)}
    assert Counter(name for names in owned.values() for name in names) == {"a": 1, "b": 1}
    third = holding(1, "a,b")
    time.sleep(2 * gpus.POLL_SECONDS)
    assert third.poll() is None
    second.kill()
    assert has(third) == owned[second]


def test_two_commands_that_need_two_of_three_gpus_take_turns(holding):
    first, second = holding(2, "a,b,c"), holding(2, "a,b,c")
    begun = time.monotonic()
    for process in (first, second):
        process.stdin.close()
    assert len(has(first)) == len(has(second)) == 2
    assert time.monotonic() - begun < 20


def test_waiting_command_holds_no_gpu(holding):
    first = holding(1, "a,b")
    has(first)
    second = holding(2, "a,b")
    time.sleep(2 * gpus.POLL_SECONDS)
    third = holding(1, "a,b")
    assert len(has(third)) == 1, "the only free GPU"
    first.kill()
    third.kill()
    assert sorted(has(second)) == ["a", "b"]


def test_pool_is_the_visible_gpus_by_common_names(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nprintf '0, GPU-x\\n1, GPU-y\\n2, GPU-z\\n'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus.pool() == ["GPU-x", "GPU-y", "GPU-z"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-x")
    assert gpus.pool() == ["GPU-z", "GPU-x"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["3", "true"],
            "error: 3 GPUs requested, CUDA_VISIBLE_DEVICES names 2: correct the profile's",
        ),
        (["0", "true"], "error: 0 GPUs requested"),
        (["1", "no-such-program"], "error: no-such-program: cannot run it: No such file or directory"),
        (["1"], "usage: python -m salsa.devices.gpus COUNT COMMAND"),
    ],
)
def test_mistakes_are_one_line(arguments, said):
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "a,b"}
    program = [sys.executable, "-m", "salsa.devices.gpus", *arguments]
    done = subprocess.run(program, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith(said) and done.stderr.count("\n") == 1


def evaluated(expression: str, model: str, attempt: int = 1):
    return eval(expression, {"wildcards": SimpleNamespace(model=model), "attempt": attempt})


def test_requests_follow_the_models_size():
    of = Sizes(large=["big"], middle=["fair"])
    assert [evaluated(of(8, 2, 1), model) for model in ("big", "fair", "mini")] == [8, 2, 1]
    assert evaluated(of.hours(24, 12, 0.5), "mini", attempt=2) == 60
    assert evaluated(of.gb(500, 64, 8), "fair", attempt=3) == 192_000
    assert [evaluated(of.gb(500, 64, 8, more=0.25), "big", attempt=n) for n in (1, 2, 3)] == [500_000, 625_000, 750_000]
    launchers = [evaluated(of.launcher(8, 2, 1, take=True), model) for model in ("big", "mini")]
    assert launchers[1] == "python -m salsa.devices.gpus 1 python"
    assert launchers[0].startswith("python -m salsa.devices.gpus 8 env ") and launchers[0].endswith(
        " --num_processes 8"
    )
    [config] = re.findall(r"--config_file (\S+)", launchers[0])
    assert Path(config).is_file()


def test_model_that_needs_more_gpus_than_a_node_gets_several_nodes():
    of = Sizes(large=["big"], middle=["fair"], gpus_per_node=4)
    asked = {name: getattr(of, name)(8, 4, 1) for name in ("nodes", "mpi", "tasks", "extra")}
    assert {name: evaluated(each, "big") for name, each in asked.items()} == {
        "nodes": 2,
        "mpi": "srun",
        "tasks": 4,
        "extra": "--gpus-per-node=4",
    }
    for model in ("fair", "mini"):
        assert {name: evaluated(each, model) for name, each in asked.items()} == {
            "nodes": 1,
            "mpi": None,
            "tasks": None,
            "extra": "",
        }
    also = of.extra(8, 4, 1, "--signal=TERM@600")
    assert [evaluated(also, model) for model in ("big", "fair")] == [
        "--gpus-per-node=4 --signal=TERM@600",
        "--signal=TERM@600",
    ]
    launcher = shlex.split(evaluated(of.launcher(8, 4, 1), "big"))
    assert launcher[0] == "srun" and {"--nodes=2", "--ntasks=2", "--gpus-per-node=4"} < set(launcher)
    assert launcher[-4:-2] == ["sh", "-c"] and launcher[-1] == "sh", 'what follows is "$@"'
    assert "--num_machines 2 --num_processes 8 " in launcher[-2]
    assert "srun" not in evaluated(of.launcher(8, 4, 1), "fair")
    assert evaluated(Sizes(large=["big"], gpus_per_node=1).tasks(2, 1, 1), "big") == 2, "the plugin's minimum is two"
    with pytest.raises(ValueError, match="6 GPUs are not whole nodes of 4: correct the profile"):
        of.nodes(6, 2, 1)


@pytest.mark.parametrize("profile", ["slurm", "gpus", "kubernetes"])
def test_each_profile_gives_gpus_to_the_stages_that_use_them(profile):
    resources = resources_by_rule(read_profile(ROOT / "profiles" / profile))
    rules = set(re.findall(r"^rule (\w+):", "".join(path.read_text() for path in (ROOT / "rules").glob("*.smk")), re.M))
    assert set(resources) - {""} <= rules
    assert {rule for rule, own in resources.items() if own.get("gpu")} == GPU_STAGES


@pytest.mark.parametrize("model", ["llama2-7b", "gemma-2b", "llama-mini"])
@pytest.mark.parametrize("profile", ["slurm", "gpus", "kubernetes"])
def test_launcher_starts_one_process_per_gpu(profile, model):
    for rule, own in resources_by_rule(read_profile(ROOT / "profiles" / profile)).items():
        if not own.get("gpu") or "launcher" not in own:
            continue
        count = evaluated(own["gpu"], model)
        launcher = own["launcher"] if "[" not in own["launcher"] else evaluated(own["launcher"], model)
        assert ("--num_processes" in launcher) == (count > 1), rule
        assert all(int(number) == count for number in re.findall(r"(?:processes|gpus) (\d+)", launcher)), rule
