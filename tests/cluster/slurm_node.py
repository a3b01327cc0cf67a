"""Slurm from Debian's packages, for tests: two nodes that claim eight CPUs and a GPU each. Needs root.

    python tests/cluster/slurm_node.py start FOLDER      python tests/cluster/slurm_node.py stop FOLDER

Everything runs on this machine and listens only on the loopback address. FOLDER holds state and logs; /etc/slurm links
to its settings. `start` installs missing packages.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd")
PACKAGES = ("munge", "slurmctld", "slurmd", "slurm-client")
SETTINGS = Path("/etc/slurm")  # where sbatch and its like look, whatever SLURM_CONF says to the daemons
NODES = ("salsa-1", "salsa-2")  # the names that both daemons have on this machine
CPUS, MEGABYTES = 8, 256000

SLURM_CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={folder}/controller
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/completed.txt
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=batch_sched_delay=0,bf_interval=1,sched_interval=2
MinJobAge=3600
KillWait=5
ReturnToService=2
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName=DEFAULT CPUs={cpus} CoresPerSocket={cpus} RealMemory={megabytes} Gres=gpu:test:1
NodeName={nodes} NodeAddr=127.0.0.1 Port=[17001-17002]
PartitionName=DEFAULT MaxTime=2-00:00:00 DefaultTime=00:10:00 DefMemPerCPU=500 State=UP
PartitionName=main Default=YES Nodes={nodes}
PartitionName=gpu Default=NO Nodes={nodes}
"""
GRES_CONF = """\
AutoDetect=off
NodeName={nodes} Name=gpu Type=test File={folder}/gpu Flags=nvidia_gpu_env
"""


def said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout


def wait(what: str, true: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} has not come about in {seconds:g} s: look at the logs in the node's folder")
        time.sleep(0.2)


class Slurm:
    def __init__(self, folder: Path):
        self.folder, self.host = folder.resolve(), socket.gethostname().split(".")[0]
        self.daemons: list[subprocess.Popen[bytes]] = []  # that this process has started
        self.links = [SETTINGS / name for name in ("slurm.conf", "gres.conf")]

    def start(self) -> None:
        """Start the daemons; returns when they accept jobs."""
        if not all(map(shutil.which, PROGRAMS)):
            install()
        self._write()
        self._launch("munged", "--foreground", "--force", f"--key-file={self.folder}/munge.key")
        wait("munge", lambda: subprocess.run(["munge", "-n"], capture_output=True).returncode == 0)
        self._launch("slurmctld", "-D")
        for name in NODES:
            self._launch(f"slurmd-{name}", "-D", "-N", name)
        idle = ["idle"] * len(NODES)
        wait(
            "idle nodes",
            lambda: said("sinfo", "--noheader", "--Node", "--partition=main", "--format=%t").split() == idle,
        )

    def stop(self) -> None:
        """Cancel all jobs and stop all daemons."""
        if self._running("slurmctld"):
            cancel_all()
        for name in (*(f"slurmd-{node}" for node in NODES), "slurmctld", "munged"):
            self._end(name)
        for daemon in self.daemons:
            daemon.wait(20)
        for link in self.links:
            link.unlink(missing_ok=True)

    def _write(self) -> None:
        for name in (".", "controller", *(f"spool-{node}" for node in NODES)):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        for path in (Path("/run/munge"), SETTINGS):
            path.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)
        Path("/run/munge").chmod(0o755)
        key = self.folder / "munge.key"
        if not key.exists():
            key.touch(mode=0o600)
            key.write_bytes(os.urandom(1024))
        with contextlib.suppress(FileExistsError):
            os.mknod(self.folder / "gpu", 0o20666, os.makedev(1, 3))  # a twin of /dev/null
        known = {"host": self.host, "folder": self.folder, "nodes": ",".join(NODES)}
        sizes = {"cpus": CPUS, "megabytes": MEGABYTES}
        for link, text in zip(self.links, (SLURM_CONF, GRES_CONF), strict=True):
            path = self.folder / link.name
            path.write_text(text.format(**known, **sizes))
            if link.exists() and not link.is_symlink():
                sys.exit(f"error: {link} is there: this machine has a Slurm of its own")
            link.unlink(missing_ok=True)
            link.symlink_to(path)
        if subprocess.run(["getent", "hosts", self.host], capture_output=True).returncode != 0:
            with Path("/etc/hosts").open("a") as hosts:
                hosts.write(f"127.0.0.1 {self.host}\n")

    def _launch(self, name: str, *arguments: str) -> None:
        """Start a daemon by its program's name and, if there are several, its node's name."""
        if self._running(name):
            return
        command = [name.split("-")[0], *arguments]
        with (self.folder / f"{name}.out").open("ab") as out:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )
        (self.folder / f"{name}.started").write_text(str(process.pid))
        self.daemons.append(process)

    def _end(self, name: str) -> None:
        pid = self._running(name)
        if pid is None:
            return
        os.kill(pid, signal.SIGTERM)
        try:
            wait(f"the end of {name}", lambda: not self._running(name), 15)
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)

    def _running(self, name: str) -> int | None:
        """Process id of a daemon."""
        try:
            pid = int((self.folder / f"{name}.started").read_text())
            state = Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return pid if f"({name.split('-')[0]})" in state and ") Z" not in state else None


def install() -> None:
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}  # and no daemon is started by it
    for command in (["update"], ["install", "--yes", "--no-install-recommends", *PACKAGES]):
        subprocess.run(["apt-get", "--quiet", "--quiet", *command], env=quiet, check=True, stdout=subprocess.DEVNULL)


def cancel_all() -> None:
    jobs = said("squeue", "--noheader", "--format=%A").split()
    if jobs:
        subprocess.run(["scancel", *sorted(set(jobs))], timeout=20)
    with contextlib.suppress(TimeoutError):
        wait("an empty queue", lambda: not said("squeue", "--noheader").strip(), 30)


if __name__ == "__main__":
    verb, folder = sys.argv[1:]
    {"start": Slurm.start, "stop": Slurm.stop}[verb](Slurm(Path(folder)))
