"""Outputs appear complete or not at all, and nothing is left beside them."""

import os
import platform
import stat
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import save_file

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


@pytest.mark.parametrize(("umask", "expected"), [(0o027, 0o640), (0o002, 0o664), (0o077, 0o600)])
def test_files_of_a_folder_can_be_read_by_whom_the_umask_lets(umask, expected, tmp_path):
    """safetensors writes files for their owner alone; a user's own file, to which a link leads, stays as it is."""
    own = tmp_path / "model.safetensors"
    save_file({"x": torch.zeros(1)}, own)
    assert stat.S_IMODE(own.stat().st_mode) == 0o600
    before = os.umask(umask)
    try:
        with output_folder(tmp_path / "out") as folder:
            (folder / "kept").mkdir()
            save_file({"x": torch.zeros(1)}, folder / "kept/model.safetensors")
            (folder / "linked.safetensors").symlink_to(own)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out/kept/model.safetensors").stat().st_mode) == expected
    assert stat.S_IMODE(own.stat().st_mode) == 0o600
