"""What a profile asks for by the size of a model: expressions that Snakemake evaluates for each job.

__use_yte__: true
__definitions__:
  - from salsa.model_sizes import Sizes
  - of = Sizes(large=["llama2-7b", "mistral-7b"], middle=["gemma-2b"])
set-resources:
  align: {gpu: "?of(8, 2, 1)", runtime: "?of.hours(24, 24, 4)"}
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

FSDP = Path(__file__).parents[1] / "profiles/accelerate/fsdp2.yaml"
# A run that is told to stop has the time of a step.
LAUNCH = f"env TORCH_ELASTIC_SHUTDOWN_TIMEOUT=540 accelerate launch --config_file {shlex.quote(str(FSDP))}"


@dataclass(frozen=True)
class Sizes:
    """The models of about 7B and 2B parameters, by the names that the config gives them; all others are small."""

    large: Sequence[str] = ()
    middle: Sequence[str] = ()

    def __call__(self, large: object, middle: object, small: object) -> str:
        """The one or the other, by the job's model."""
        known = [(name, large) for name in self.large] + [(name, middle) for name in self.middle]
        # Not written with braces: Snakemake fails over those in a `runtime`.
        return f"dict({known}).get(wildcards.model, {small!r})"

    def hours(self, large: float, middle: float, small: float) -> str:
        """Minutes, as `runtime` wants them; more at each attempt."""
        return f"60 * attempt * {self(large, middle, small)}"

    def gb(self, large: float, middle: float, small: float) -> str:
        """Megabytes, as `mem_mb` wants them; more at each attempt."""
        return f"1000 * attempt * {self(large, middle, small)}"

    def launcher(self, large: int, middle: int, small: int, take: bool = False) -> str:
        """Of a model that so many GPUs share; `take` has the job take those that are free (salsa/gpus.py)."""

        def of(gpus: int) -> str:
            own = f"python -m salsa.gpus {gpus} " if take else ""
            return own + ("python" if gpus == 1 else f"{LAUNCH} --num_processes {gpus}")

        return self(of(large), of(middle), of(small))
