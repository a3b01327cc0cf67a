"""How long the plan expects a job of each rule to take. A running grid estimates from it how much time is left."""

from collections import defaultdict
from statistics import fmean

from eval.planning.assumed import assumed
from eval.planning.jobs import Jobs
from eval.planning.judge_calls import JudgeCosts
from eval.planning.schedule import place
from eval.planning.sizes import Sizes
from salsa.config.config import Config


def job_seconds(config: Config, device: str) -> dict[str, float]:
    """The mean planned seconds of a job of each rule, on a device of assumed.yaml."""
    sizes = Sizes(config)
    seconds = defaultdict(list)
    for job in Jobs(sizes, JudgeCosts(sizes)).by_name.values():
        seconds[job.rule].append(place(job, assumed().devices[device]).seconds)
    return {rule: fmean(values) for rule, values in seconds.items()}
