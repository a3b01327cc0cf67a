"""The planned seconds of a job, from which a running grid estimates the time that is left."""

import logging
from collections import Counter, defaultdict
from types import SimpleNamespace

import pytest

from eval.costs.assumed import assumed
from eval.planning.grid_plan import Plan
from eval.planning.schedule import job_seconds
from eval.workflow.start import GPU, offer_plan
from salsa.config.config import load_config
from tests.documented import ROOT


@pytest.fixture(scope="module")
def config():
    return load_config(ROOT / "config/smoke.yaml")


@pytest.mark.parametrize("device", ["cpu", GPU])
def test_all_jobs_of_a_rule_take_what_the_plan_says(config, device):
    runs = Plan.of(config, assumed().devices[device], 1).runs.values()
    totals, jobs = defaultdict(float), Counter(run.job.rule for run in runs)
    for run in runs:
        totals[run.job.rule] += run.seconds
    seconds = job_seconds(config, device)
    assert {rule: seconds[rule] * count for rule, count in jobs.items()} == pytest.approx(totals)


@pytest.mark.parametrize(("resources", "device"), [({"launcher": "python"}, "cpu"), ({"gpu": 1}, GPU)])
def test_the_display_is_offered_the_plan_for_what_the_jobs_run_on(config, resources, device, caplog):
    with caplog.at_level(logging.INFO, "snakemake.logging"):
        offer_plan(config, [SimpleNamespace(resources={}), SimpleNamespace(resources=resources)])
    [record] = caplog.records
    assert record.planned_seconds() == job_seconds(config, device)
