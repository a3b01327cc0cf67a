"""The GPUs: whether torch can compute on those that are here, and whether each stage fits what jobs will get."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from functools import partial

from eval.checks.check import Check, NotChecked
from eval.planning.assumed import Device, assumed
from eval.planning.plan import Plan, largest, misfit, size
from eval.planning.schedule import Run
from eval.planning.work import GIGABYTE
from salsa.config.config import Config, for_model
from salsa.runtime.errors import UserError

FREE_SHARE = 0.95  # of a GPU's memory, where nobody else is on it
BFLOAT16_CAPABILITY = (8, 0)
DRIVER_SECONDS = 20
CPU = "cpu"
ELSEWHERE = "name those that jobs will get (--device h100 --count 8)"


@dataclass(frozen=True)
class Gpu:
    """As torch sees it; memory in bytes."""

    index: int
    name: str
    memory: int
    capability: tuple[int, int]


def here() -> list[Gpu]:
    """The GPUs of this machine that torch can see."""
    import torch

    if not torch.cuda.is_available():
        return []
    found = [(index, torch.cuda.get_device_properties(index)) for index in range(torch.cuda.device_count())]
    return [Gpu(index, each.name, each.total_memory, (each.major, each.minor)) for index, each in found]


def jobs_get(name: str | None, count: int | None, gpus: list[Gpu], config: Config) -> tuple[Device, int] | None:
    """The device that jobs run on and how many there are: as named, else this machine's; None if that says nothing."""
    if name is None and gpus:
        # The plan is asked for memory alone: what else a device gives does not matter.
        update = {"title": gpus[0].name, "memory": min(gpu.memory for gpu in gpus) / GIGABYTE}
        return assumed().devices["h100"].model_copy(update=update), count or len(gpus)
    if name == CPU or (name is None and config.world is not None):
        return assumed().devices[CPU], count or os.cpu_count() or 1
    return None if name is None else (assumed().devices[name], count or 1)


def checks(config: Config, gpus: list[Gpu], device: Device | None) -> list[Check]:
    """This machine's GPUs, and whether they are all there for jobs that get such devices."""
    each = [Check("gpu", f"{gpu.index}: {gpu.name}", partial(computes, gpu, config)) for gpu in gpus]
    return [Check("gpu", "cuda", partial(cuda, gpus, device)), *each]


def stages(plan: Plan) -> list[Check]:
    """Each stage's memory."""
    return [
        Check("memory", f"{rule} of {model}", partial(fits, runs, plan))
        for (model, rule), runs in plan.by_stage().items()
        if any(run.job.cost.memory is not None for run in runs)
    ]


def _unknown() -> str:
    raise NotChecked(f"which devices jobs get is not known: {ELSEWHERE}")


UNKNOWN = Check("memory", "all stages", _unknown)


def cuda(gpus: list[Gpu], device: Device | None) -> str:
    """Whether torch sees the GPUs that the driver has, for jobs that get such devices."""
    import torch

    built, driver = f"torch {torch.__version__}", driver_says()
    if gpus:
        return f"{built}, {len(gpus)} GPU{'s' * (len(gpus) > 1)}"
    if device is assumed().devices[CPU]:
        raise NotChecked("jobs run on the CPU" + (f", and {built} sees none of {driver}" if driver else ""))
    if torch.version.cuda is None and torch.version.hip is None:
        raise UserError(f"{built} is a build for CPUs: install the one for CUDA (pip install -r requirements.lock)")
    if driver and "CUDA_VISIBLE_DEVICES" in os.environ:
        raise UserError(f"CUDA_VISIBLE_DEVICES hides {driver}: unset it, or give it their numbers")
    if driver:
        raise UserError(
            f"{built} is built for CUDA {torch.version.cuda} and sees none of {driver}: update the driver to one that "
            "has it"
        )
    if device is not None:
        raise NotChecked("no GPU is here; where there are some, run this again in a job")
    raise UserError(f"no GPU is here: run this where there are some, {ELSEWHERE}, or --device cpu")


def driver_says() -> str:
    """The driver's GPUs with its version; empty where there is none."""
    if shutil.which("nvidia-smi") is None:
        return ""
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=DRIVER_SECONDS)
    except subprocess.TimeoutExpired:
        raise UserError(f"nvidia-smi says nothing for {DRIVER_SECONDS} s: the driver hangs, restart the node") from None
    return "; ".join(said.stdout.strip().splitlines()) if said.returncode == 0 else ""


def computes(gpu: Gpu, config: Config) -> str:
    """A product on the GPU, and whether it is free and of a kind that the config can use."""
    import torch

    try:
        ones = torch.ones(256, 256, device=f"cuda:{gpu.index}")
        total = float((ones @ ones).sum())
        free, _ = torch.cuda.mem_get_info(gpu.index)
    except RuntimeError as error:
        raise UserError(
            f"torch cannot compute on it ({str(error).splitlines()[0]}): leave it out with CUDA_VISIBLE_DEVICES, or "
            "install a torch that is built for it"
        ) from None
    if total != 256.0**3:
        raise UserError(f"a product of ones sums to {total:g} instead of {256.0**3:g}: leave it out, it is broken")
    if wants_bfloat16(config) and gpu.capability < BFLOAT16_CAPABILITY:
        version = ".".join(map(str, gpu.capability))
        raise UserError(f"it has no bfloat16 (compute capability {version}): take an A100 or later, or dtype: float32")
    if free < FREE_SHARE * gpu.memory:
        raise UserError(
            f"{size(gpu.memory - free)} of {size(gpu.memory)} are taken: see nvidia-smi for whose they are, and wait, "
            "or leave it out with CUDA_VISIBLE_DEVICES"
        )
    return f"{size(free)} of {size(gpu.memory)} are free"


def wants_bfloat16(config: Config) -> bool:
    """Whether any stage computes in it."""
    models = [for_model(config, model) for model in config.models]
    sections = ("sft", "reward", "ppo", "dpo", "generate", "score", "alpha")
    found = [getattr(own, name) for own in models for name in sections]
    return any(section is not None and section.dtype == "bfloat16" for section in found)


def fits(runs: list[Run], plan: Plan) -> str:
    """A stage's memory, and what the devices have."""
    most, wrong = largest(runs), misfit(runs, plan.count)
    if wrong:
        raise UserError(wrong)
    if plan.device.memory is None:
        whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if most.memory > whole:
            raise UserError(f"{size(most.memory)}, of this machine's {size(whole)}: take a larger one, or GPUs")
        return f"{size(most.memory)} a job, of this machine's {size(whole)}"
    on = f"on each of {most.count}" if most.count > 1 else "on one"
    return f"{size(most.memory)} {on}, of {plan.device.memory:.3g} GB"
