"""A copy of a grid reruns nothing because of the copy's file times."""

import json
import os
import time
from pathlib import Path

import pytest

from salsa.runtime.outputs import output_file, output_folder
from salsa.runtime.provenance import Run
from salsa.workflow.file_times import restore_times

HOUR = 3600


@pytest.fixture
def chain(tmp_path, monkeypatch):
    """world -> base -> policy -> scores, an hour apart, as Snakemake leaves them."""
    monkeypatch.chdir(tmp_path)
    begin = time.time() - 9 * HOUR

    def make(hour: int, name: str, *inputs: str) -> None:
        path, record = Path(name), Run("stage", {"name": name}, {each: Path(each) for each in inputs}, {})
        if path.suffix:
            with output_file(path, record) as file:
                file.write_text("x")
            clock, file = path, path.with_suffix(".run.json")
        else:
            with output_folder(path, record) as folder:
                (folder / "part.jsonl").write_text(name)
                (folder / ".snakemake_timestamp").touch()
            clock, file = path / ".snakemake_timestamp", path / "run.json"
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(begin + hour * HOUR))
        file.write_text(json.dumps({**json.loads(file.read_text()), "started": stamp, "wall_seconds": 60}))
        os.utime(clock, (begin + hour * HOUR + 61,) * 2)

    make(1, "data/world")
    make(2, "checkpoints/base", "data/world/part.jsonl")
    make(3, "checkpoints/policy", "checkpoints/base")
    make(4, "results/scores.jsonl", "checkpoints/policy")
    return make


def clocks() -> list[float]:
    names = ("data/world", "checkpoints/base", "checkpoints/policy")
    paths = [*(Path(name) / ".snakemake_timestamp" for name in names), Path("results/scores.jsonl")]
    return [path.stat().st_mtime for path in paths]


def copied_in_the_wrong_order() -> None:
    """A copy whose first files are the newest."""
    for second, path in enumerate(sorted(Path().rglob("*"), key=lambda path: -path.stat().st_mtime)):
        os.utime(path, (time.time() - HOUR + second,) * 2)


FOLDERS = (Path("checkpoints"), Path("results"))


def test_inputs_of_a_copy_get_their_times_back(chain):
    before = clocks()
    copied_in_the_wrong_order()
    assert clocks() != sorted(clocks())
    assert sorted(map(str, restore_times(FOLDERS))) == ["checkpoints/base", "checkpoints/policy", "data/world"]
    assert clocks()[:3] == pytest.approx(before[:3], abs=2) and clocks() == sorted(clocks())
    assert restore_times(FOLDERS) == []


def test_runs_within_a_second_keep_their_order(chain):
    """Records hold whole seconds: a run may seem to end just before one that began later."""
    for name, seconds in (("data/world", 0.9), ("checkpoints/base", 0.1)):
        file = Path(name) / "run.json"
        record = json.loads(file.read_text())
        file.write_text(json.dumps({**record, "started": "2026-01-01T00:00:00Z", "wall_seconds": seconds}))
    copied_in_the_wrong_order()
    restore_times(FOLDERS)
    assert clocks()[0] == clocks()[1] == 1767225600.9 and clocks() == sorted(clocks())


def test_correct_times_are_left_alone(chain):
    before = clocks()
    assert restore_times(FOLDERS) == [] and clocks() == before


def test_outputs_that_a_busy_machine_finished_late_are_left_alone(chain):
    """Snakemake sets an output's time when it notices that the job has ended."""
    for path in Path().rglob("*"):
        os.utime(path, (path.stat().st_mtime + 8,) * 2)
    before = clocks()
    assert restore_times(FOLDERS) == [] and clocks() == before


@pytest.mark.parametrize("change", ["made again", "another", "changed", "no record"])
def test_changed_input_stays_newer(chain, change):
    if change == "made again":  # with the same settings, so the same id, but later: perhaps by other code
        chain(6, "checkpoints/base", "data/world/part.jsonl")
    elif change == "another":
        file = Path("checkpoints/base/run.json")
        file.write_text(json.dumps({**json.loads(file.read_text()), "id": "0123456789abcdef"}))
    elif change == "changed":
        Path("data/world/part.jsonl").write_text("other rows")
    else:
        Path("checkpoints/base/run.json").write_text("{")
    copied_in_the_wrong_order()
    kept = {"changed": "data/world"}.get(change, "checkpoints/base")
    assert kept not in map(str, restore_times(FOLDERS))


def test_read_only_folder_is_left_alone(chain, monkeypatch):
    def refused(*_):
        raise PermissionError(13, "Permission denied")

    copied_in_the_wrong_order()
    monkeypatch.setattr(os, "utime", refused)
    assert restore_times(FOLDERS) == []
