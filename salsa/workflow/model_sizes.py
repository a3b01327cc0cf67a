"""Resources by model size, for profiles: each method returns an expression that Snakemake evaluates for each job.

__use_yte__: true
__definitions__:
  - from salsa.workflow.model_sizes import Sizes
  - of = Sizes(large=["llama2-7b", "mistral-7b"], middle=["gemma-2b"])
set-resources:
  align: {gpu: "?of(8, 2, 1)", runtime: "?of.hours(24, 24, 4)"}
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

FSDP = Path(__file__).parents[2] / "profiles/accelerate/fsdp2.yaml"
# On SIGTERM a run finishes its current step, so the launcher has to wait that long.
LAUNCH = f"env TORCH_ELASTIC_SHUTDOWN_TIMEOUT=540 accelerate launch --config_file {shlex.quote(str(FSDP))}"
# Options of accelerate's launcher on each node of a Slurm job: the node's rank, the first node's address, and a port
# that no other job uses.
MEET = (
    '--machine_rank "$SLURM_NODEID" --main_process_ip "$SLURM_LAUNCH_NODE_IPADDR" '
    "--main_process_port $((20000 + SLURM_JOB_ID % 20000))"
)


@dataclass(frozen=True)
class Sizes:
    """Models of about 7B (`large`) and 2B (`middle`) parameters, by their names in the config; all others are small.

    A job that needs more GPUs than a node has runs on several nodes. For that a profile sets `nodes`, `tasks`, `extra`,
    `mpi` (which keeps Snakemake's Slurm plugin from wrapping the job in a step) and the launcher.
    """

    large: Sequence[str] = ()
    middle: Sequence[str] = ()
    gpus_per_node: int = 8

    def __call__(self, large: object, middle: object, small: object) -> str:
        """The value for the job's model."""
        values = [(name, large) for name in self.large] + [(name, middle) for name in self.middle]
        # dict(…), because Snakemake fails on braces in a `runtime` expression.
        return f"dict({values}).get(wildcards.model, {small!r})"

    def hours(self, large: float, middle: float, small: float) -> str:
        """For `runtime`, in minutes; grows with each attempt."""
        return f"60 * attempt * {self(large, middle, small)}"

    def gb(self, large: float, middle: float, small: float, more: float = 1) -> str:
        """For `mem_mb`, in MB; each further attempt adds `more` times the first amount."""
        return f"int(1000 * (1 + {more} * (attempt - 1)) * {self(large, middle, small)})"

    def launcher(self, large: int, middle: int, small: int, take: bool = False) -> str:
        """Command prefix for a run on that many GPUs; with `take` it waits for free GPUs (salsa/devices/gpus.py)."""

        def of(gpus: int) -> str:
            own = f"python -m salsa.devices.gpus {gpus} " if take else ""
            return own + ("python" if gpus == 1 else self._launch(gpus))

        return self(of(large), of(middle), of(small))

    def nodes(self, large: int, middle: int, small: int) -> str:
        """Nodes needed for that many GPUs."""
        return self(self._nodes(large), self._nodes(middle), self._nodes(small))

    def mpi(self, large: int, middle: int, small: int) -> str:
        """For `mpi`: set on a job of several nodes, unset otherwise."""
        return self._spread("srun", large, middle, small)

    def tasks(self, large: int, middle: int, small: int) -> str:
        """For `tasks_per_node`: at least 2 (the plugin's minimum) on a job of several nodes, unset otherwise."""
        return self._spread(max(2, self.gpus_per_node), large, middle, small)

    def extra(self, large: int, middle: int, small: int, also: str = "") -> str:
        """For `slurm_extra`: GPUs per node on a job of several nodes, and `also`."""
        own = [
            f"--gpus-per-node={self.gpus_per_node} {also}".strip() if self._nodes(gpus) > 1 else also
            for gpus in (large, middle, small)
        ]
        return self(*own)

    def _nodes(self, gpus: int) -> int:
        if gpus > self.gpus_per_node and gpus % self.gpus_per_node:
            raise ValueError(f"{gpus} GPUs are not whole nodes of {self.gpus_per_node}: correct the profile")
        return max(1, gpus // self.gpus_per_node)

    def _spread(self, value: object, *gpus: int) -> str:
        return self(*(value if self._nodes(each) > 1 else None for each in gpus))

    def _launch(self, gpus: int) -> str:
        nodes = self._nodes(gpus)
        if nodes == 1:
            return f"{LAUNCH} --num_processes {gpus}"
        step = f"srun --nodes={nodes} --ntasks={nodes} --ntasks-per-node=1 --gpus-per-node={self.gpus_per_node} "
        step += "--cpu-bind=none --kill-on-bad-exit "
        launch = f'exec {LAUNCH} --num_machines {nodes} --num_processes {gpus} {MEET} "$@"'
        return f"{step}sh -c {shlex.quote(launch)} sh"
