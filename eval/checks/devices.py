"""Checks of GPUs: whether torch can compute on this machine's, and whether each stage fits the devices of its jobs."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from functools import partial

from eval.checks.check import Check, NotChecked
from eval.costs.assumed import Device, assumed
from eval.costs.work import GIGABYTE
from eval.planning.fitting import largest, misfit
from eval.planning.formats import size
from eval.planning.grid_plan import Plan
from eval.planning.schedule import Run
from salsa.config.config import Config, for_model
from salsa.runtime.errors import UserError
from salsa.runtime.texts import counted

FREE_SHARE = 0.95  # a GPU with less of its memory free is in use by another process
BFLOAT16_CAPABILITY = (8, 0)
DRIVER_SECONDS = 20
CPU = "cpu"
NAME_THE_DEVICES = "name the devices of the jobs (--device h100 --count 8)"


@dataclass(frozen=True)
class Gpu:
    """A GPU as torch reports it; memory in bytes."""

    index: int
    name: str
    memory: int
    capability: tuple[int, int]


def visible_gpus() -> list[Gpu]:
    """The GPUs of this machine that torch can see."""
    import torch

    if not torch.cuda.is_available():
        return []
    properties = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return [Gpu(index, p.name, p.total_memory, (p.major, p.minor)) for index, p in enumerate(properties)]


def job_devices(name: str | None, count: int | None, gpus: list[Gpu], config: Config) -> tuple[Device, int] | None:
    """The kind and number of devices for jobs: as named, else this machine's. None if neither is known."""
    if name is None and gpus:
        # These checks use the plan's memory alone, so another GPU's speed does no harm.
        update = {"title": gpus[0].name, "memory": min(gpu.memory for gpu in gpus) / GIGABYTE}
        return assumed().devices["h100"].model_copy(update=update), count or len(gpus)
    if name == CPU or (name is None and config.world is not None):
        return assumed().devices[CPU], count or os.cpu_count() or 1
    return None if name is None else (assumed().devices[name], count or 1)


def checks(config: Config, gpus: list[Gpu], device: Device | None) -> list[Check]:
    """One check that torch sees the driver's GPUs, and one per visible GPU."""
    per_gpu = [Check("gpu", f"{gpu.index}: {gpu.name}", partial(check_gpu, gpu, config)) for gpu in gpus]
    return [Check("gpu", "cuda", partial(check_cuda, gpus, device)), *per_gpu]


def stages(plan: Plan) -> list[Check]:
    """One check per model and stage that its memory fits the devices."""
    return [
        Check("memory", f"{rule} of {model}", partial(check_memory, runs, plan))
        for (model, rule), runs in plan.by_stage().items()
        if any(run.job.cost.memory is not None for run in runs)
    ]


def _unknown_devices() -> str:
    raise NotChecked(f"the devices of the jobs are not known: {NAME_THE_DEVICES}")


UNKNOWN_DEVICES = Check("memory", "all stages", _unknown_devices)


def check_cuda(gpus: list[Gpu], device: Device | None) -> str:
    """Check that torch sees the driver's GPUs, if jobs on `device` need any on this machine."""
    import torch

    built, driver = f"torch {torch.__version__}", driver_gpus()
    if gpus:
        return f"{built}, {counted(len(gpus), 'GPU')}"
    if device is assumed().devices[CPU]:
        raise NotChecked("jobs run on the CPU" + (f"; {built} does not see {driver}" if driver else ""))
    if torch.version.cuda is None and torch.version.hip is None:
        raise UserError(f"{built} is a CPU build: install the one for CUDA (make environment TORCH=cuda)")
    if driver and "CUDA_VISIBLE_DEVICES" in os.environ:
        raise UserError(f"CUDA_VISIBLE_DEVICES hides {driver}: unset it, or list the GPUs' numbers in it")
    if driver:
        raise UserError(
            f"{built} is built for CUDA {torch.version.cuda} and does not see {driver}: install a driver that supports "
            "this CUDA version"
        )
    if device is not None:
        raise NotChecked("this machine has no GPU; run this again in a job on a machine that has")
    raise UserError(f"this machine has no GPU: run this on one that has, {NAME_THE_DEVICES}, or use --device cpu")


def driver_gpus() -> str:
    """The GPUs that the NVIDIA driver lists, with its version; empty without a driver."""
    if shutil.which("nvidia-smi") is None:
        return ""
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=DRIVER_SECONDS)
    except subprocess.TimeoutExpired:
        raise UserError(
            f"nvidia-smi did not answer within {DRIVER_SECONDS} s: the driver hangs; restart the node"
        ) from None
    return "; ".join(result.stdout.strip().splitlines()) if result.returncode == 0 else ""


def check_gpu(gpu: Gpu, config: Config) -> str:
    """Check that the GPU multiplies matrices correctly, has its memory free, and supports the config's dtypes."""
    import torch

    try:
        ones = torch.ones(256, 256, device=f"cuda:{gpu.index}")
        total = float((ones @ ones).sum())
        free, _ = torch.cuda.mem_get_info(gpu.index)
    except RuntimeError as error:
        raise UserError(
            f"torch cannot compute on this GPU ({str(error).splitlines()[0]}): exclude it with CUDA_VISIBLE_DEVICES, "
            "or install a torch build that supports it"
        ) from None
    if total != 256.0**3:
        raise UserError(
            f"a matrix product of ones sums to {total:g} instead of {256.0**3:g}: the GPU is broken; exclude it with "
            "CUDA_VISIBLE_DEVICES"
        )
    if wants_bfloat16(config) and gpu.capability < BFLOAT16_CAPABILITY:
        version = ".".join(map(str, gpu.capability))
        raise UserError(
            f"this GPU has no bfloat16 (compute capability {version}): use an A100 or later, or set dtype: float32"
        )
    if free < FREE_SHARE * gpu.memory:
        raise UserError(
            f"{size(gpu.memory - free)} of {size(gpu.memory)} are in use: nvidia-smi shows by which process; wait, or "
            "exclude the GPU with CUDA_VISIBLE_DEVICES"
        )
    return f"{size(free)} of {size(gpu.memory)} are free"


def wants_bfloat16(config: Config) -> bool:
    """Whether any stage computes in bfloat16."""
    models = [for_model(config, model) for model in config.models]
    names = ("sft", "reward", "ppo", "dpo", "generate", "score", "alpha")
    sections = [getattr(settings, name) for settings in models for name in names]
    return any(section is not None and section.dtype == "bfloat16" for section in sections)


def check_memory(runs: list[Run], plan: Plan) -> str:
    """Check that the stage's largest job fits into the devices' memory, or into this machine's for CPU jobs."""
    most, problem = largest(runs), misfit(runs, plan.count, plan.device)
    if problem:
        raise UserError(problem)
    if plan.device.memory is None:
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if most.memory > machine:
            raise UserError(
                f"a job needs {size(most.memory)}, this machine has {size(machine)}: use a larger machine, or GPUs"
            )
        return f"{size(most.memory)} per job, of this machine's {size(machine)}"
    devices = f"on each of {most.count} devices" if most.count > 1 else "on one device"
    return f"{size(most.memory)} {devices}, of {plan.device.memory:.3g} GB"
