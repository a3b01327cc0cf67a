"""Run the smoke grid through profiles/kubernetes: `make test-kubernetes`, 3 minutes.

tests/kubernetes/api_server.py simulates the cluster's API, and pods are processes. Snakemake, its plugin and our module
are real. On the way a snakemake is killed, a job fails once, and a pod is lost; the tables have to equal a local run's.
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.kubernetes.api_server import Cluster, Pod
from tests.workflow.elsewhere import FAILS_ONCE, check_like_a_local_run, wait
from tests.workflow.running import ROOT

SECONDS = 1200


def start(cluster: Cluster, *arguments: str) -> "subprocess.Popen[str]":
    """Start the command of docs/howto-kubernetes.md, with another volume path and no waiting."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), *arguments]
    command += ["--profile", str(cluster.volume / "profile"), "--workflow-profile", str(ROOT / "profiles/default")]
    command += ["--configfile", str(ROOT / "config/smoke.yaml")]
    command += ["--kubernetes-volume-persistent-volumes", f"salsa:{cluster.volume}"]
    command += ["--seconds-between-status-checks", "1"]
    environment = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([".", str(ROOT / "profiles/kubernetes")]),
        "KUBECONFIG": str(cluster.folder / "kubeconfig"),
        "JUDGE_KEY": "never to be seen",
        "HOME": os.environ["HOME"],
    }
    return subprocess.Popen(
        command,
        cwd=cluster.volume,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def of_rule(pods: list[Pod], rule: str) -> list[Pod]:
    return [pod for pod in pods if re.search(rf"--target-jobs '?{rule}:", pod.container["args"][-1])]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("cluster"), tmp_path_factory.mktemp("volume"))
    yield cluster
    cluster.close()


@pytest.fixture(scope="module")
def finished(cluster) -> str:
    """Output of the run that completed the grid."""
    volume = cluster.volume
    (volume / "fails_once").write_text(FAILS_ONCE.format(folder=volume))
    profile = yaml.safe_load((ROOT / "profiles/kubernetes/profile.yaml").read_text())
    profile["set-resources"]["align"]["launcher"] = f"sh {volume}/fails_once"
    (volume / "profile").mkdir()
    (volume / "profile/profile.yaml").write_text(yaml.safe_dump(profile))
    killed = start(cluster)
    wait("an SFT job", lambda: of_rule(cluster.running(), "sft"), killed)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate(timeout=60)
    assert cluster.running(), "pods outlive the snakemake that sent them"
    assert "kubectl delete jobs --selector app=snakemake" in (ROOT / "docs/howto-kubernetes.md").read_text()
    cluster.delete_all()
    again = start(cluster, "--envvars", "JUDGE_KEY")
    wait("a pod to lose", lambda: of_rule(cluster.running(), "reward"), again)
    [pod] = of_rule(cluster.running(), "reward")
    wait("its process", lambda: pod.process, again)
    pod.kill()
    text, _ = again.communicate(timeout=SECONDS)
    assert again.returncode == 0, text
    return text


def test_tables_equal_those_of_a_local_run(cluster, finished, tmp_path):
    assert "Adjusted win rate of salsa against ppo" in finished
    check_like_a_local_run(cluster.volume, tmp_path)


def test_failed_job_and_lost_pod_are_resubmitted(cluster, finished):
    assert len(re.findall("^Restarted: ", finished, re.MULTILINE)) == 2
    assert finished.count("the node had a bad day") == 1, "the failed job's log is shown"
    memory = sorted(pod.asked["memory"] for pod in of_rule(cluster.sent, "align"))
    assert memory == ["10000M", *["8000M"] * 4]


def test_pods_request_what_the_profile_says(cluster, finished):
    """GPUs and memory also as limits, no CPU limit, shared memory, little local disk."""
    for rule in ("sft", "reward", "align", "alpha", "generate", "score"):
        for pod in of_rule(cluster.sent, rule):
            assert (pod.gpus, pod.asked["ephemeral-storage"]) == (1, "20000M"), rule
            assert set(pod.container["resources"]["limits"]) == {"memory", "nvidia.com/gpu"}
    small = [pod for pod in cluster.sent if not pod.gpus]
    assert small and all(set(pod.container["resources"]["limits"]) == {"memory"} for pod in small)
    assert max(int(pod.asked["ephemeral-storage"].removesuffix("M")) for pod in small) == 8000, "eight jobs per group"
    assert {pod.container["image"] for pod in cluster.sent} == {"registry.example.org/salsa:0.1"}
    assert all("/dev/shm" in [mount["mountPath"] for mount in pod.container["volumeMounts"]] for pod in cluster.sent)
    assert len(cluster.sent) < 40, "small jobs are grouped"


def test_keys_reach_pods_only_as_secrets(cluster, finished):
    assert "never to be seen" not in str([pod.job for pod in cluster.sent]) + finished
    assert any(variable["name"] == "JUDGE_KEY" for pod in cluster.sent for variable in pod.container["env"])
    assert len(cluster.secrets) == 1, "only the killed run's secret is left"
