"""Versions and machines of runs, from their records, and the warning if they differ."""

import json
from pathlib import Path

import pandas as pd
import pytest

from eval.grid.run_versions import differing, made_with, shown, table, warning
from salsa.runtime.errors import UserError
from salsa.runtime.outputs import output_file, output_folder
from salsa.runtime.provenance import Run

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """run(name, inputs, changes of the record) writes a file or folder with its run.json and returns its path."""
    monkeypatch.chdir(tmp_path)
    usual = {"git_commit": COMMIT, "versions": {"python": "3.11.7", "torch": "2.13.0"}, "processor": "EPYC"}

    def make(name: str, *inputs: Path, **changes) -> Path:
        path = Path(name)
        record = Run("stage", {}, {str(n): each for n, each in enumerate(inputs)}, {})
        if path.suffix:
            with output_file(path, record) as file:
                file.write_text("x")
        else:
            with output_folder(path, record) as folder:
                (folder / "part.jsonl").write_text("y")
        file = path.with_suffix(".run.json") if path.suffix else path / "run.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **usual, **changes}))
        return path

    return make


def grid(run, **changes) -> list[Path]:
    """Two scores of two policies from one base, as the tables' inputs."""
    world = run("data/world")
    base = run("checkpoints/base", world / "part.jsonl")
    policies = [run(f"checkpoints/policy/{name}", base, **changes.get(name, {})) for name in ("a", "b")]
    return [run(f"results/scores/{policy.name}.jsonl", policy) for policy in policies]


def test_runs_are_found_through_their_inputs(run):
    found = made_with(grid(run))
    assert found["commit"] == {"0123456789ab": sorted(found["commit"]["0123456789ab"])}
    assert found["torch"]["2.13.0"] == [
        "checkpoints/base",
        *(f"checkpoints/policy/{name}" for name in "ab"),
        "data/world",
        *(f"results/scores/{name}.jsonl" for name in "ab"),
    ]
    assert differing(found) == [] and warning(table(found).astype(str).to_dict("records")) is None
    assert set(shown(table(found))["which"]) == {"all"} and set(table(found)["paths"]) == {""}
    assert set(table(found)["property"]) >= {"processor", "device"} and "torch" not in set(table(found)["property"])


def test_two_commits_and_versions_are_named_with_the_affected_runs(run):
    other = {"git_commit": f"{'f' * 40}+changes", "versions": {"python": "3.11.7", "torch": "2.14.1", "vllm": "0.31"}}
    found = made_with(grid(run, b=other))
    assert differing(found) == ["commit", "torch"], "a package that only some stages load is not a difference"
    frame = table(found)
    rows = shown(frame).to_dict("records")
    assert [row for row in rows if row["property"] == "commit"] == [
        {"property": "commit", "value": "0123456789ab", "runs": "5 of 6", "which": "all others"},
        {"property": "commit", "value": "ffffffffffff+changes", "runs": "1 of 6", "which": "checkpoints/policy/b"},
    ]
    assert warning(frame.astype(str).to_dict("records")) == (
        "Runs differ in more than the config: commit 0123456789ab (5 runs), ffffffffffff+changes (1 runs); "
        "torch 2.13.0 (5 runs), 2.14.1 (1 runs)."
    )


def test_two_kinds_of_processors_are_named_and_threads_are_per_stage(run):
    found = made_with(grid(run, a={"processor": "Xeon", "threads": 2}, b={"threads": 1}))
    assert differing(found) == ["processor"]
    assert "processor EPYC (5 runs), Xeon (1 runs)" in warning(table(found).astype(str).to_dict("records"))


def test_missing_records_are_left_out_and_broken_ones_named(run):
    scores = grid(run)
    (Path("checkpoints/policy/a/run.json")).unlink()
    assert "checkpoints/policy/a" not in str(made_with(scores)), "moved checkpoints are left out"
    assert made_with([Path("nowhere.jsonl")]) == {}
    assert list(shown(table({})).columns) == ["property", "value", "runs", "which"]
    assert isinstance(table({}), pd.DataFrame)
    Path("checkpoints/policy/b/run.json").write_text('{"id": ')
    with pytest.raises(UserError, match=r"policy/b/run\.json: not a run record \(.*\): rebuild checkpoints/policy/b"):
        made_with(scores)
