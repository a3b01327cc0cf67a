"""Jobs on devices: who runs when, by the order of the grid, as Snakemake's greedy scheduler would."""

import heapq
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from eval.planning.assumed import Device, assumed
from eval.planning.jobs import Job
from eval.planning.work import GIGABYTE

USABLE = 0.92  # of a device's memory: the rest is its own and lies in fragments
COUNTS = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True)
class Run:
    """A job on `count` devices (0: it takes none) for so many seconds; whether it `fits` into their memory."""

    job: Job
    count: int
    seconds: float
    memory: float  # bytes of each device
    fits: bool

    @property
    def device_seconds(self) -> float:
        return self.count * self.seconds


def run_of(job: Job, device: Device) -> Run:
    """On the fewest devices that have the memory, where the job can be spread over several; else on one."""
    if job.cost.memory is None:
        # Where the devices are the machine's cores, there are no others.
        count = 1 if device.memory is None else 0
        return Run(job, count, sum(work.seconds(device, 1) for work in job.cost.work), 0.0, True)
    whole = device.memory * GIGABYTE if device.memory else float("inf")
    aside = job.cost.memory.aside * whole if device.memory else 0.0
    usable = USABLE * whole - aside
    counts = COUNTS if job.cost.spreads else (1,)
    count = next((count for count in counts if job.cost.memory.on(count) <= usable), counts[-1])
    slower = 1.0 if count == 1 else assumed().together
    seconds = sum(work.seconds(device, count) for work in job.cost.work) / slower
    memory = job.cost.memory.on(count)
    return Run(job, count, seconds, memory + aside, memory <= usable)


def ends(runs: Mapping[str, Run], devices: int) -> dict[str, float]:
    """Seconds after which each job has ended, with so many devices; jobs that take none wait for no one.

    `runs` by name, needed ones first. A job that needs more devices than there are gets them all, and is as slow.
    """
    waiting = {name: sum(need in runs for need in set(run.job.needs)) for name, run in runs.items()}
    followers: dict[str, list[str]] = defaultdict(list)
    for name, run in runs.items():
        for need in set(run.job.needs) & runs.keys():
            followers[need].append(name)
    order = {name: number for number, name in enumerate(runs)}
    ready = [(order[name], name) for name, count in waiting.items() if not count]
    heapq.heapify(ready)
    ending: list[tuple[float, str, int]] = []
    found: dict[str, float] = {}
    free, now = devices, 0.0
    while ready or ending:
        held = []
        while ready:
            number, name = heapq.heappop(ready)
            run = runs[name]
            wanted = min(run.count, devices)
            if wanted > free:
                held.append((number, name))
                continue
            free -= wanted
            slower = run.count / wanted if wanted else 1.0
            heapq.heappush(ending, (now + run.seconds * slower, name, wanted))
        ready = held
        heapq.heapify(ready)
        now, name, wanted = heapq.heappop(ending)
        found[name] = now
        free += wanted
        for follower in followers[name]:
            waiting[follower] -= 1
            if not waiting[follower]:
                heapq.heappush(ready, (order[follower], follower))
    return found
