"""A one-node Slurm of Debian's packages for tests: eight CPUs and two GPUs, most of which are not there. As root.

    python tests/cluster/slurm_node.py start FOLDER      python tests/cluster/slurm_node.py stop FOLDER

All of it runs on this machine and listens on the loopback address alone; FOLDER has its state and logs, and /etc/slurm
links to its settings. `start` installs the packages where they are missing.
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
CPUS, MEGABYTES, GPUS = 8, 64000, 2

SLURM_CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={folder}/controller
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
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
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} CoresPerSocket={cpus} RealMemory={megabytes} Gres=gpu:test:{gpus}
PartitionName=main Default=YES Nodes={host} MaxTime=2-00:00:00 DefaultTime=00:10:00 DefMemPerCPU=500 State=UP
PartitionName=gpu Default=NO Nodes={host} MaxTime=2-00:00:00 DefaultTime=00:10:00 DefMemPerCPU=500 State=UP
"""
GRES_CONF = """\
AutoDetect=off
NodeName={host} Name=gpu Type=test File={folder}/gpu[0-{last}] Flags=nvidia_gpu_env
"""


def said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout


def wait(what: str, true: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} has not come about in {seconds:g} s: look at the logs in the node's folder")
        time.sleep(0.2)


class Node:
    def __init__(self, folder: Path):
        self.folder, self.host = folder.resolve(), socket.gethostname().split(".")[0]
        self.daemons: list[subprocess.Popen[bytes]] = []  # that this process has started
        self.links = [SETTINGS / name for name in ("slurm.conf", "gres.conf")]

    def start(self) -> None:
        """Ready for jobs when it returns."""
        if not all(map(shutil.which, PROGRAMS)):
            install()
        self._write()
        self._launch("munged", "--foreground", "--force", f"--key-file={self.folder}/munge.key")
        wait("munge", lambda: subprocess.run(["munge", "-n"], capture_output=True).returncode == 0)
        self._launch("slurmctld", "-D")
        self._launch("slurmd", "-D")
        wait("an idle node", lambda: "idle" in said("sinfo", "--noheader", "--format=%t"))

    def stop(self) -> None:
        """All jobs are cancelled; nothing of it runs afterwards."""
        if self._running("slurmctld"):
            cancel_all()
        for program in reversed(PROGRAMS):
            self._end(program)
        for daemon in self.daemons:
            daemon.wait(20)
        for link in self.links:
            link.unlink(missing_ok=True)

    def _write(self) -> None:
        for name in (".", "controller", "spool"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        for path in (Path("/run/munge"), SETTINGS):
            path.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)
        Path("/run/munge").chmod(0o755)
        key = self.folder / "munge.key"
        if not key.exists():
            key.touch(mode=0o600)
            key.write_bytes(os.urandom(1024))
        for number in range(GPUS):
            with contextlib.suppress(FileExistsError):
                os.mknod(self.folder / f"gpu{number}", 0o20666, os.makedev(1, 3))  # twins of /dev/null
        known = {"host": self.host, "folder": self.folder, "last": GPUS - 1}
        sizes = {"cpus": CPUS, "megabytes": MEGABYTES, "gpus": GPUS}
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

    def _launch(self, program: str, *arguments: str) -> None:
        if self._running(program):
            return
        with (self.folder / f"{program}.out").open("ab") as out:
            process = subprocess.Popen(
                [program, *arguments], stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )
        (self.folder / f"{program}.started").write_text(str(process.pid))
        self.daemons.append(process)

    def _end(self, program: str) -> None:
        pid = self._running(program)
        if pid is None:
            return
        os.kill(pid, signal.SIGTERM)
        try:
            wait(f"the end of {program}", lambda: not self._running(program), 15)
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)

    def _running(self, program: str) -> int | None:
        """The number of its process."""
        try:
            pid = int((self.folder / f"{program}.started").read_text())
            state = Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return pid if f"({program})" in state and ") Z" not in state else None


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
    {"start": Node.start, "stop": Node.stop}[verb](Node(Path(folder)))
