"""Run the smoke grid through profiles/slurm on a Slurm of this machine: `make test-cluster`, as root on Debian, 5
minutes.

On the way snakemake is killed while jobs run, a job fails once, and a job is cancelled. The tables have to equal those
of a run without Slurm, byte for byte. PPO also runs over two nodes.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from salsa.runtime.jsonl import read_jsonl
from tests.cluster.slurm_node import Slurm, said
from tests.workflow.elsewhere import FAILS_ONCE, check_like_a_local_run, wait
from tests.workflow.running import ROOT

FAST = Path(__file__).with_name("fast_snakemake.py")
SLOW = 1200
METRICS = "results/smoke/training/llama-mini/ppo-s1.jsonl"
# accelerate's launcher for machines without a GPU, on which its own starts one process alone.
ACCELERATE = """\
import os, sys
from accelerate.commands.launch import launch_command_parser
from torch.distributed import run
given = launch_command_parser().parse_args(sys.argv[2:])
assert sys.argv[1] == "launch" and given.module and given.config_file.endswith("fsdp2.yaml"), sys.argv
options = [f"--nnodes={given.num_machines}", f"--nproc_per_node={given.num_processes // given.num_machines}"]
options += [f"--node_rank={given.machine_rank}", f"--master_addr={given.main_process_ip}"]
options += [f"--master_port={given.main_process_port}", "-m", given.training_script]
os.environ["ACCELERATE_USE_CPU"] = "true"
launch = run.get_args_parser().parse_args(options)
# As accelerate does: torch's parser would take --run for one of its own options.
launch.training_script_args = given.training_script_args
run.run(launch)
"""


@pytest.fixture(scope="module", autouse=True)
def node(tmp_path_factory) -> Iterator[Slurm]:
    if os.geteuid() != 0:
        pytest.exit("make test-cluster: it starts Slurm's daemons, for which it has to be root", 1)
    node = Slurm(tmp_path_factory.mktemp("slurm"))
    try:
        node.start()
        yield node
    finally:
        node.stop()


def start(folder: Path, *configs: Path, target: str = "all") -> "subprocess.Popen[str]":
    """Start the command of docs/howto-cluster.md, for a cluster without accounting."""
    command = [sys.executable, FAST, "--snakefile", ROOT / "Snakefile", "--profile", folder / "profile"]
    command += [target, "--workflow-profile", ROOT / "profiles/default"]
    command += ["--configfile", ROOT / "config/smoke.yaml", *configs]
    command += ["--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "1"]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.Popen(
        list(map(str, command)),
        cwd=folder,
        env={**environment, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def jobs(state: str = "RUNNING,PENDING") -> dict[str, str]:
    """Slurm's jobs in these states, with the comment that names their rule."""
    rows = said("squeue", "--noheader", f"--states={state}", "--format=%A|%k").splitlines()
    return dict(row.strip().split("|", 1) for row in rows)


def running(rule: str) -> list[str]:
    return [number for number, comment in jobs("RUNNING").items() if comment.startswith(f"rule_{rule}_wildcards_")]


@pytest.fixture(scope="module")
def clustered(node, tmp_path_factory) -> tuple[Path, str]:
    """The finished grid, and the output of the run that completed it."""
    folder = tmp_path_factory.mktemp("clustered")
    (folder / "fails_once").write_text(FAILS_ONCE.format(folder=folder))
    profile = (ROOT / "profiles/slurm/profile.yaml").read_text()
    of_align = '    slurm_extra: ?of.extra(8, 2, 1, "--signal=TERM@600")\n'
    assert of_align in profile
    (folder / "profile").mkdir()
    changed = profile.replace(of_align, f"{of_align}    launcher: sh {folder}/fails_once\n")
    (folder / "profile/profile.yaml").write_text(changed)
    killed = start(folder)
    wait("an SFT job", lambda: running("sft"), killed)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate(timeout=60)
    left = jobs()
    assert left, "Slurm's jobs outlive the snakemake that sent them"
    # The documented recovery: cancel what is left, and give the same command again.
    [recovery] = [line for line in (ROOT / "docs/howto-cluster.md").read_text().splitlines() if "| xargs" in line]
    subprocess.run(["sh", "-c", recovery], check=True, timeout=60)
    deadline = time.monotonic() + 60
    while jobs():
        assert time.monotonic() < deadline, jobs()
        time.sleep(0.2)
    again = start(folder)
    wait("a job to cancel", lambda: running("reward"), again)
    number, *_ = running("reward")
    subprocess.run(["scancel", number], check=True, timeout=20)
    text, _ = again.communicate(timeout=SLOW)
    assert again.returncode == 0, text
    return folder, text


def test_tables_equal_those_of_a_local_run(clustered, tmp_path):
    folder, text = clustered
    assert "Adjusted win rate of salsa against ppo" in text
    check_like_a_local_run(folder, tmp_path)


def test_failed_and_cancelled_jobs_are_resubmitted(clustered):
    folder, text = clustered
    assert len((folder / "launches").read_text().splitlines()) == 5, "four PPO jobs, one of them launched twice"
    assert text.count("the node had a bad day") == 1, "the failed job's log is shown"
    assert len(re.findall("^Restarted: ", text, re.MULTILINE)) == 2


def test_jobs_request_what_the_profile_says(clustered):
    """By Slurm's records: partition, number of GPUs, and more memory at a resubmission."""
    asked: dict[str, list[dict[str, str]]] = {}
    for line in said("scontrol", "show", "jobs", "--oneliner").splitlines():
        job = dict(part.split("=", 1) for part in line.split() if "=" in part)
        asked.setdefault(re.sub("_wildcards_.*", "", job["Comment"]), []).append(job)
    for rule in ("sft", "reward", "align", "alpha", "generate", "score"):
        found = asked[f"rule_{rule}"]
        assert {(job["Partition"], job.get("TresPerJob")) for job in found} == {("gpu", "gres:gpu:1")}, rule
    assert sorted(job["MinMemoryNode"] for job in asked["rule_align"]) == ["10000M", *["8000M"] * 4]
    assert {job["Partition"] for rule, found in asked.items() for job in found if "judging" in rule} == {"main"}
    assert sum(map(len, asked.values())) < 40, "small jobs are grouped"


def told_to_stop(folder: Path, longer: Path) -> None:
    """A longer PPO run that gets SIGTERM after two steps and resumes."""
    longer.write_text("ppo: {steps: 40}\n")
    process = start(folder, longer, target="checkpoints/smoke/policy/llama-mini/ppo-s1")
    unfinished = folder / "checkpoints/smoke/policy/llama-mini/ppo-s1.training"
    wait("two steps", lambda: any(len(read_jsonl(path)) > 1 for path in unfinished.glob("*/metrics.jsonl")), process)
    [number] = running("align")
    subprocess.run(["scancel", "--signal=TERM", number], check=True, timeout=20)
    text, _ = process.communicate(timeout=SLOW)
    assert process.returncode == 0, text
    assert "rerun the same command to resume from" in text, "the first attempt's log is shown"
    assert "ppo: resuming after" in (folder / "logs/smoke/align/llama-mini/ppo-s1.log").read_text()


@pytest.fixture(scope="module")
def longer(clustered, tmp_path_factory) -> Path:
    """The outputs of a longer PPO run that was stopped on the way."""
    folder, _ = clustered
    told_to_stop(folder, tmp_path_factory.mktemp("longer") / "longer.yaml")
    return folder


def test_stopped_ppo_resumes(longer):
    """The profile's `--signal` makes Slurm send SIGTERM when a job's time is nearly up."""
    assert len(read_jsonl(longer / METRICS)) == 40


def test_ppo_over_two_nodes(longer, tmp_path, monkeypatch):
    """A model that needs more GPUs than a node has: one process on each of two nodes, stopped on the way, ends like one
    process.
    """
    copied = tmp_path / "copied"
    shutil.copytree(longer, copied, symlinks=True, ignore=shutil.ignore_patterns("policy", "profile", "training"))
    profile = (ROOT / "profiles/slurm/profile.yaml").read_text()
    sizes = 'Sizes(large=["llama2-7b", "mistral-7b"], middle=["gemma-2b"], gpus_per_node=8)'
    assert sizes in profile
    (copied / "profile").mkdir()
    changed = profile.replace(sizes, 'Sizes(middle=["llama-mini"], gpus_per_node=1)')
    (copied / "profile/profile.yaml").write_text(changed.replace("(8, 2, 1", "(2, 2, 1"))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/accelerate").write_text(f"#!{sys.executable}\n{ACCELERATE}")
    (tmp_path / "bin/accelerate").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    told_to_stop(copied, tmp_path / "longer.yaml")
    shown = said("scontrol", "show", "jobs", "--oneliner")
    spread = [line for line in shown.splitlines() if "rule_align" in line and "NumNodes=2 " in line]
    assert len(spread) == 2 and all("gres/gpu=2" in line or "gres:gpu:2" in line for line in spread)
    one, two = (read_jsonl(folder / METRICS) for folder in (longer, copied))
    assert len(one) == len(two) == 40
    # Later on a token that rounding draws otherwise parts them.
    for name in ("reward", "kl_ref_k1", "loss_value"):
        first = [step[name] for step in one[:8]]
        assert [step[name] for step in two[:8]] == pytest.approx(first, rel=1e-3, abs=1e-4), name


def test_plugin_installed_without_dependencies_misses_one_version_only():
    """requirements-slurm.txt: the lock satisfies all other requirements of the plugin."""
    lacking = set()
    for plugin in ("snakemake-executor-plugin-slurm", "snakemake-executor-plugin-slurm-jobstep"):
        for wanted in map(Requirement, metadata.requires(plugin)):
            if metadata.version(wanted.name) not in wanted.specifier:
                lacking.add(wanted.name)
    assert lacking == {"numpy"}


def test_doctor_finds_the_cluster(tmp_path, command, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, error = command(
        *("salsa", "doctor", "--config", ROOT / "config/smoke.yaml", "--profile", ROOT / "profiles/slurm")
    )
    assert status == 0, error
