"""Which stages do not fit the devices' memory, and which would be faster with more of it."""

import math
from collections.abc import Iterable
from typing import Any

from eval.costs.assumed import Device
from eval.costs.work import GIGABYTE
from eval.planning.formats import size
from eval.planning.grid_plan import Plan
from eval.planning.schedule import USABLE, Run
from salsa.config.config import Config
from salsa.runtime.texts import counted

TRAINING = ("sft", "reward", "align", "dpo")  # rules
CHECKPOINTING = "gradient_checkpointing"
WORTH = 0.95  # share of a stage's device hours; a smaller gain is not worth a line


def largest(runs: Iterable[Run]) -> Run:
    """The run with most devices; among those, the one with most memory per device."""
    return max(runs, key=lambda run: (run.count, run.memory))


def misfit(runs: Iterable[Run], count: int, device: Device) -> str | None:
    """Why a stage's runs do not fit `count` devices, with the remedy; None if they fit."""
    most = largest(runs)
    memory, device_bytes = most.job.cost.memory, (device.memory or 0.0) * GIGABYTE
    if memory and (share := memory.least_share(device_bytes)):
        return (
            f"vLLM needs {share:.2f} of each device's memory: raise ppo.vllm.gpu_memory_utilization, or use a larger "
            "device"
        )
    if memory and not most.fits and (left := memory.share_left(count, device_bytes, USABLE * device_bytes)):
        return (
            f"{math.floor(100 * left) / 100:.2f} of the memory is left for vLLM on {counted(count, 'device')}: lower "
            "ppo.vllm.gpu_memory_utilization to that, or use a larger device"
        )
    if not most.fits:
        devices = "one device" if most.count == 1 else f"each of {most.count} devices"
        set_it = f" set {CHECKPOINTING}," if most.job.rule in TRAINING else ""
        return (
            f"needs {size(most.memory)} on {devices}: lower its micro_batch_size or batch_size,{set_it} shorten its "
            "sequences, or use a larger device"
        )
    if most.count > count:
        return f"needs {most.count} devices for its memory, of {count}: use more"
    return None


def misfit_lines(plan: Plan) -> list[str]:
    """One line per stage that does not fit the devices, with the remedy."""
    reasons = {stage: misfit(runs, plan.count, plan.device) for stage, runs in plan.by_stage().items()}
    return [f"too small  {rule} of {model}: {reason}" for (model, rule), reason in reasons.items() if reason]


def without_checkpointing(settings: Any) -> Any:
    """Settings with gradient checkpointing switched off wherever they switch it on."""
    if not isinstance(settings, dict):
        return settings
    off = {CHECKPOINTING: False} if settings.get(CHECKPOINTING) else {}
    return {name: without_checkpointing(value) for name, value in settings.items()} | off


def checkpointing_lines(plan: Plan) -> list[str]:
    """Stages that fit the devices without gradient checkpointing, too, and then take fewer device hours."""
    config = Config.model_validate(without_checkpointing(plan.config.model_dump(exclude_unset=True, mode="json")))
    if plan.device.memory is None or config == plan.config:
        return []
    others, lines = Plan.of(config, plan.device, plan.count).by_stage(), []
    for (model, rule), runs in plan.by_stage().items():
        other = others[model, rule]
        before, after = (sum(run.device_seconds for run in part) / 3600 for part in (runs, other))
        if after < WORTH * before and misfit(other, plan.count, plan.device) is None:
            most = largest(other)
            devices = counted(most.count, "device")
            text = f"{size(most.memory)} on {devices}, {after:,.1f} device hours instead of {before:,.1f}"
            lines.append(f"           {rule} of {model}: {text}")
    head = f"faster     stages that fit without {CHECKPOINTING}, too, and then take fewer device hours"
    return [head, *lines] if lines else []
