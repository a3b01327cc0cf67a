"""Outputs appear complete or not at all, and nothing is left beside them."""

import os
import platform
import subprocess
import sys
import time

import pytest

from salsa.runtime.outputs import output_file, output_folder, scratch


@pytest.mark.parametrize("kind", ["tmp", "work"])
def test_next_writer_removes_a_killed_ones_leftovers(tmp_path, kind):
    """On this host if the process is gone, on another host after a day; never those of another output."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    here, out = platform.node(), tmp_path / "out"
    removed = [
        f".out.{child.pid}-0123abcd@{here}.{kind}",
        f".out.{os.getpid()}-0123abcd@{here}.old.{kind}",
        f".out.7-0123abcd@elsewhere.{kind}",
    ]
    stay = [f".out.{os.getpid()}-0123abcd@{here}.{kind}", f".out.{child.pid}-0123abcd@elsewhere.{kind}"]
    stay += [f".other.{child.pid}-0123abcd@{here}.{kind}", f".out.{child.pid}@{here}.{kind}", "out.tmp"]
    for name in removed + stay:
        (tmp_path / name).mkdir()
        (tmp_path / name / "half").write_text("a file")
    for name in removed[1:]:
        for path in (tmp_path / name / "half", tmp_path / name):
            os.utime(path, (time.time() - 100_000,) * 2)
    # A folder that is old, with a file that is new: somebody writes it.
    os.utime(tmp_path / stay[1], (time.time() - 100_000,) * 2)
    with output_folder(out) as folder:
        (folder / "whole").write_text("a file")
        assert folder.parent == tmp_path
    with scratch(out) as folder:
        assert folder.is_dir()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*stay, "out"])
    (tmp_path / f".out.{child.pid}-0123abcd@{here}.{kind}").write_text("a file")
    with pytest.raises(RuntimeError), output_file(tmp_path / "out"):
        raise RuntimeError
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*stay, "out"])
