"""What a profile asks for by the size of a model: expressions that Snakemake evaluates for each job.

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
# A run that is told to stop has the time of a step.
LAUNCH = f"env TORCH_ELASTIC_SHUTDOWN_TIMEOUT=540 accelerate launch --config_file {shlex.quote(str(FSDP))}"
# Of accelerate's launcher on each node of a Slurm job: its number, where the first one is, and a port there that is
# this job's alone.
MEET = (
    '--machine_rank "$SLURM_NODEID" --main_process_ip "$SLURM_LAUNCH_NODE_IPADDR" '
    "--main_process_port $((20000 + SLURM_JOB_ID % 20000))"
)


@dataclass(frozen=True)
class Sizes:
    """The models of about 7B and 2B parameters, by the names that the config gives them; all others are small.

    Where a model wants more GPUs than a node has, the job is one of several nodes: `nodes`, `tasks`, `extra`, `mpi`,
    which keeps Snakemake's plugin from running the job inside of a step of its own, and the launcher.
    """

    large: Sequence[str] = ()
    middle: Sequence[str] = ()
    gpus_per_node: int = 8

    def __call__(self, large: object, middle: object, small: object) -> str:
        """The one or the other, by the job's model."""
        known = [(name, large) for name in self.large] + [(name, middle) for name in self.middle]
        # Not written with braces: Snakemake fails over those in a `runtime`.
        return f"dict({known}).get(wildcards.model, {small!r})"

    def hours(self, large: float, middle: float, small: float) -> str:
        """Minutes, as `runtime` wants them; more at each attempt."""
        return f"60 * attempt * {self(large, middle, small)}"

    def gb(self, large: float, middle: float, small: float, more: float = 1) -> str:
        """Megabytes, as `mem_mb` wants them; at each further attempt so many times the first one's more."""
        return f"int(1000 * (1 + {more} * (attempt - 1)) * {self(large, middle, small)})"

    def launcher(self, large: int, middle: int, small: int, take: bool = False) -> str:
        """Of a model that so many GPUs share; `take` has the job take those that are free (salsa/devices/gpus.py)."""

        def of(gpus: int) -> str:
            own = f"python -m salsa.devices.gpus {gpus} " if take else ""
            return own + ("python" if gpus == 1 else self._launch(gpus))

        return self(of(large), of(middle), of(small))

    def nodes(self, large: int, middle: int, small: int) -> str:
        """How many nodes have so many GPUs."""
        return self(self._nodes(large), self._nodes(middle), self._nodes(small))

    def mpi(self, large: int, middle: int, small: int) -> str:
        """What Snakemake's plugin calls a job over several nodes; unset for all others."""
        return self._spread("srun", large, middle, small)

    def tasks(self, large: int, middle: int, small: int) -> str:
        """Tasks of each node, of which the plugin wants two at least; unset for a job of one node."""
        return self._spread(max(2, self.gpus_per_node), large, middle, small)

    def extra(self, large: int, middle: int, small: int, also: str = "") -> str:
        """Further options of sbatch: as many GPUs on each node of several, and `also`."""
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
