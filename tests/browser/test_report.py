"""Open a report with hostile texts in a real browser: texts of models, judges and data sets are shown, and none of them
runs.

`make test-browser` runs this; it needs Chromium.
"""

import html
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.eval.hostile import COMMANDS, HOSTILE, write_hostile_answers
from tests.eval.synthetic import GRID, write_results

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ("--headless", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync")


def document(page: Path, profile: Path) -> str:
    """The page's DOM after scripts have had two seconds."""
    assert CHROMIUM is not None, "no Chromium: apt-get install chromium"
    alone = ["--no-sandbox"] if os.geteuid() == 0 else []
    shown = ["--virtual-time-budget=2000", "--dump-dom", page.as_uri()]
    command = [CHROMIUM, *FLAGS, *alone, f"--user-data-dir={profile}", *shown]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


@pytest.fixture
def report(tmp_path, command) -> Path:
    results = write_results(tmp_path / "results")
    write_hostile_answers(results)
    for stage, out in (("tables", "tables"), ("figures", "figures"), ("report", "report.html")):
        settings = GRID.model_dump_json(exclude_none=True)
        status, said = command("eval", stage, "--results", results, "--settings", settings, "--out", results / out)
        assert status == 0, said
    return results / "report.html"


def test_a_planted_script_is_detected(tmp_path):
    (tmp_path / "page.html").write_text(f"<title>report</title>{HOSTILE[0]}")
    assert "<title>owned</title>" in document(tmp_path / "page.html", tmp_path / "profile")


def test_no_text_of_an_answer_runs(report, tmp_path):
    found = document(report, tmp_path / "profile")
    assert f"<title>salsa: {GRID.grid}</title>" in found
    for tag in ("script", "img", "iframe", "a"):
        assert not re.search(rf"<{tag}\b", found), tag
    assert not re.search(r"<[^>]*\son\w+=", found), "an event handler"
    assert html.escape(HOSTILE[0], quote=False) in found and "{{ 7 * 7 }}" in found, "shown as text"
    assert not any(character in found for character in COMMANDS)
