"""The bars of a terminal."""

import io
import re

import pytest
from rich.console import Console

from eval.progress.bars import Bars, draw, shown_stages
from eval.progress.run_state import Job, RunState, Stage
from salsa.runtime.errors import UserError

NOW = 2000.0
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture
def run():
    run = RunState()
    run.add_stages({"base": 1, "sft": 4, "align": 12, "show": 1})
    run.add_plan({"base": 100, "sft": 60, "align": 60, "show": 1})
    run.start(Job(1, "base", "llama", "", (), NOW - 150))
    run.finish(1, NOW - 50)
    for number in (2, 3):
        run.start(Job(number, "sft", f"llama {number}", "", (), NOW - 50))
    return run


def text(run, width, height=40, **options):
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, **options)
    console.print(draw(run, NOW, width, height))
    return console.file.getvalue()


def test_each_stage_has_a_line_with_its_jobs_time_and_what_runs(run):
    lines = [re.sub("[━╸╺]+", "|", line).rstrip() for line in ESCAPE.sub("", text(run, 100)).splitlines()]
    assert [line.split() for line in lines] == [
        ["base", "|", "1/1", "1:40"],
        ["sft", "|", "0/4", "0:50", "llama", "2,", "llama", "3"],
        ["align", "|", "0/12"],
        ["show", "|", "0/1"],
        ["total", "|", "1/18", "2:30", "about", "11", "minutes", "left"],
    ]


@pytest.mark.parametrize("width", [20, 40, 59, 60, 80, 200])
def test_lines_fit_the_terminal(run, width):
    lines = ESCAPE.sub("", text(run, width)).splitlines()
    assert len(lines) == 5 and max(map(len, lines)) <= width
    assert ("llama 2" in lines[1]) == (width >= 60)


def test_there_is_no_colour_when_none_is_wanted(run, monkeypatch):
    assert re.search(r"\x1b\[[0-9;]*[39][0-9]m", text(run, 100))
    assert not re.search(r"\x1b\[[0-9;]*[39][0-9]m", text(run, 100, no_color=True))
    monkeypatch.setenv("NO_COLOR", "1")
    assert not re.search(r"\x1b\[[0-9;]*[39][0-9]m", text(run, 100))


def test_low_terminal_shows_running_stages_then_those_to_come():
    running = {1: Job(1, "x", "", "", (), NOW)}
    stages = [Stage("a", 1, done=1), Stage("b", 1, done=1), Stage("c", 2, running=running), Stage("d", 1)]
    names = [[stage.name for stage in shown_stages(stages, rows)] for rows in (0, 1, 2, 3, 4, 9)]
    assert names == [["c"], ["c"], ["c", "d"], ["b", "c", "d"], ["a", "b", "c", "d"], ["a", "b", "c", "d"]]


def test_drawing_ends_when_a_job_prints_itself_and_messages_stand_above(run):
    console = Console(file=io.StringIO(), width=80, height=40, force_terminal=True)
    bars = Bars(console)
    bars.start(run, run.stages["sft"].running[2])
    bars.say(["FAILED: " + "long " * 40], "red")
    run.stages["show"].running[9] = show = Job(9, "show", "", "print", (), NOW, prints=True)
    bars.start(run, show)
    assert bars.live is None
    said = ESCAPE.sub("", console.file.getvalue())
    assert "FAILED: " + "long " * 40 in said, "not broken into lines"
    last = said[said.rindex("base") :].splitlines()
    assert [line.split()[0] for line in last if line.strip()] == ["base", "sft", "align", "total"]
    before = console.file.getvalue()
    bars.stop()
    assert console.file.getvalue() == before


def test_a_grid_without_a_plan_is_said(run):
    console = Console(file=io.StringIO(), width=200, force_terminal=True)

    def fails():
        raise UserError("no shape of the model")

    Bars(console).plan(run, fails)
    assert "The plan is missing, so the time left is unknown at first: no shape of the model" in console.file.getvalue()
