"""The time that a run still needs, against runs whose end is known."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.progress.run_state import Job, RunState, clock, roughly

START = 1000.0


def job(number: int, stage: str, started: float, name: str = "") -> Job:
    return Job(number, stage, name, "", (), started)


def simulate(lengths: list[float], lanes: int, until: float, planned: float | None) -> RunState:
    """A stage whose jobs start in order on so many lanes, as it stands at a time."""
    run = RunState()
    run.add_stages({"align": len(lengths)})
    if planned is not None:
        run.add_plan({"align": planned, "unknown": 1.0})
    free = [START] * lanes
    events = []
    for number, length in enumerate(lengths):
        lane = min(range(lanes), key=free.__getitem__)
        events += [(free[lane], 1, number), (free[lane] + length, 0, number)]
        free[lane] += length
    for at, starts, number in sorted(events):
        if at > until:
            break
        if starts:
            run.start(job(number, "align", at))
        else:
            run.finish(number, at)
    return run


@given(st.integers(1, 4), st.integers(1, 8), st.floats(1, 1000), st.floats(0.01, 0.99))
def test_time_left_is_exact_when_all_jobs_take_the_planned_time(lanes, rounds, seconds, share):
    run = simulate([seconds] * lanes * rounds, lanes, now := START + share * rounds * seconds, seconds)
    assert run.seconds_left(now) == pytest.approx((1 - share) * rounds * seconds)


@pytest.mark.parametrize("planned", [None, 1.0, 10.0, 500.0])
def test_measured_durations_replace_the_plan(planned):
    run = simulate([10.0] * 8, 2, START + 25, planned)
    assert run.done == 4 and run.seconds_left(START + 25) == pytest.approx(15)


def test_a_stage_to_come_is_planned_at_the_speed_of_the_finished_ones():
    run = RunState()
    run.add_stages({"sft": 1, "align": 3})
    run.add_plan({"sft": 10.0, "align": 20.0})
    run.start(job(1, "sft", START))
    assert run.seconds_left(START + 5) == pytest.approx(5 + 60), "by the plan while nothing has finished"
    run.finish(1, START + 30)
    run.start(job(2, "align", START + 30))
    prior = 0.05 * (10 + 3 * 20)
    slower = (prior + 30) / (prior + 10)
    assert run.seconds_left(START + 30) == pytest.approx(3 * 20 * slower)


def test_nothing_is_known_before_the_start_or_without_plan_and_measurement():
    run = RunState()
    assert run.seconds_left(START) is None
    run.add_stages({"sft": 1, "align": 1})
    run.start(job(1, "sft", START))
    assert run.seconds_left(START + 5) is None


def test_job_that_takes_longer_than_expected_has_no_negative_time_left():
    run = simulate([100.0], 1, START + 50, 10.0)
    assert run.seconds_left(START + 50) == 0


def test_failed_job_that_starts_again_no_longer_counts_as_failed():
    run = RunState()
    run.add_stages({"sft": 1})
    run.start(job(7, "sft", START))
    assert run.fail(7, START + 1) is not None and list(run.failed) == [7]
    run.start(job(7, "sft", START + 2))
    run.finish(7, START + 5)
    assert not run.failed and (run.done, run.total) == (1, 1)
    assert run.stages["sft"].seconds == 3 and run.stages["sft"].elapsed(START + 60) == 5
    assert run.finish(7, START + 6) is run.fail(8, START + 6) is None, "jobs that have not started"


@pytest.mark.parametrize(
    ("seconds", "exact", "estimate"),
    [
        (0, "0:00", "less than a minute"),
        (59.6, "1:00", "about a minute"),
        (100, "1:40", "about 2 minutes"),
        (3725, "1:02:05", "about 62 minutes"),
        (20000, "5:33:20", "about 6 hours"),
        (300000, "83:20:00", "about 3 days"),
    ],
)
def test_durations_in_words(seconds, exact, estimate):
    assert (clock(seconds), roughly(seconds)) == (exact, estimate)
