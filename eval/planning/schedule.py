"""The schedule of jobs on devices: each job starts as soon as it can, in the grid's order, as under Snakemake."""

import heapq
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

from eval.costs.assumed import Device, assumed
from eval.costs.sizes import Sizes
from eval.costs.work import GIGABYTE
from eval.planning.jobs import Job, Jobs
from eval.planning.judge_calls import JudgeCosts
from salsa.config.config import Config

USABLE = 0.92  # share of a device's memory; the rest is the driver's, or fragmented
COUNTS = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True)
class Run:
    """A job on `count` devices (0 for a job that takes none)."""

    job: Job
    count: int
    seconds: float
    memory: float  # bytes on each device
    fits: bool  # into the memory of `count` devices

    @property
    def device_seconds(self) -> float:
        return self.count * self.seconds


def place(job: Job, device: Device) -> Run:
    """Place a job on as few devices as have the memory; on one if it cannot spread over several."""
    if job.cost.memory is None:
        # A CPU plan's devices are cores, and every job takes one.
        count = 1 if device.memory is None else 0
        return Run(job, count, sum(work.seconds(device, 1) for work in job.cost.work), 0.0, True)
    device_bytes = (device.memory or 0.0) * GIGABYTE
    usable = USABLE * device_bytes if device.memory else float("inf")
    counts = COUNTS if job.cost.spreads else (1,)
    count = next((count for count in counts if job.cost.memory.on(count, device_bytes) <= usable), counts[-1])
    seconds = sum(work.seconds(device, count) for work in job.cost.work)
    memory = job.cost.memory.on(count, device_bytes)
    return Run(job, count, seconds, memory, memory <= usable and job.cost.memory.least_share(device_bytes) is None)


def job_seconds(config: Config, device: str) -> dict[str, float]:
    """The mean planned seconds of a job of each rule, on a device of assumed.yaml.

    A running grid estimates from them how much time is left.
    """
    sizes = Sizes(config)
    seconds = defaultdict(list)
    for job in Jobs(sizes, JudgeCosts(sizes)).by_name.values():
        seconds[job.rule].append(place(job, assumed().devices[device]).seconds)
    return {rule: fmean(values) for rule, values in seconds.items()}


@dataclass(frozen=True)
class Span:
    """When a job begins and ends, in seconds from the grid's start, and on how many devices."""

    begin: float
    end: float
    devices: int


def ends(runs: Mapping[str, Run], devices: int) -> dict[str, float]:
    """When each job ends on `devices` devices, in seconds from the start."""
    return {name: span.end for name, span in spans(runs, devices).items()}


def critical_path(runs: Mapping[str, Run], when: Mapping[str, Span]) -> list[str]:
    """The jobs that the last one waited for, in order: before each, the one of its needs that ended last."""
    path = [max(when, key=lambda name: when[name].end)]
    while needs := [need for need in runs[path[-1]].job.needs if need in runs]:
        path.append(max(needs, key=lambda name: when[name].end))
    return path[::-1]


def spans(runs: Mapping[str, Run], devices: int) -> dict[str, Span]:
    """When each job runs on `devices` devices, in the order in which they end.

    `runs` maps names to runs; each comes after those that it needs. A job without devices starts at once. A job that
    needs more devices than there are takes all of them, and accordingly longer.
    """
    waiting = {name: sum(need in runs for need in set(run.job.needs)) for name, run in runs.items()}
    followers: dict[str, list[str]] = defaultdict(list)
    for name, run in runs.items():
        for need in set(run.job.needs) & runs.keys():
            followers[need].append(name)
    order = {name: number for number, name in enumerate(runs)}
    ready = [(order[name], name) for name, count in waiting.items() if not count]
    heapq.heapify(ready)
    running: list[tuple[float, str, int]] = []
    result: dict[str, Span] = {}
    begins: dict[str, float] = {}
    free, now = devices, 0.0
    while ready or running:
        postponed = []
        while ready:
            number, name = heapq.heappop(ready)
            run = runs[name]
            taken = min(run.count, devices)
            if taken > free:
                postponed.append((number, name))
                continue
            free -= taken
            slowdown = run.count / taken if taken else 1.0
            begins[name] = now
            heapq.heappush(running, (now + run.seconds * slowdown, name, taken))
        ready = postponed
        heapq.heapify(ready)
        now, name, taken = heapq.heappop(running)
        result[name] = Span(begins[name], now, taken)
        free += taken
        for follower in followers[name]:
            waiting[follower] -= 1
            if not waiting[follower]:
                heapq.heappush(ready, (order[follower], follower))
    return result
