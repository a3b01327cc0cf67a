"""What a command says, and its exit status, where it does not end as it should."""

import errno
import os
import platform
import subprocess
import sys
import time

import pytest

from salsa import stage


@pytest.fixture
def ends(monkeypatch, capsys):
    """ends(error): exit status and standard error of a command that raises it."""

    def run(error: BaseException) -> tuple[int, str]:
        def raises(arguments):
            raise error

        command = type("Command", (), {"add_arguments": staticmethod(lambda parser: None), "run": staticmethod(raises)})
        monkeypatch.setattr(sys, "argv", ["x", "it"])
        monkeypatch.setattr(stage.importlib, "import_module", lambda name: command)
        status = stage.main("x", {"it": ("command", "help")})
        return status, capsys.readouterr().err

    return run


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a/b"), "a/b: No space left on device: make room there"),
        (
            OSError(errno.EROFS, os.strerror(errno.EROFS), "data"),
            "data: Read-only file system: it is mounted read-only",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "x"), "x: Permission denied: name a folder that you may"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "No space left on device: make room there"),
    ],
)
def test_a_disk_that_takes_nothing_is_one_line(ends, error, line):
    status, said = ends(error)
    assert status == 1 and said.startswith(f"error: {line}") and said.count("\n") == 1
    assert said.endswith(", and run again: what is whole stays\n")


def test_ctrl_c_is_one_line_and_the_shells_status(ends):
    assert ends(KeyboardInterrupt()) == (130, "interrupted: the same command goes on from here\n")


def test_a_fault_of_the_program_keeps_its_traceback(ends):
    for error in (FileNotFoundError(errno.ENOENT, "No such file", "x"), ZeroDivisionError("division")):
        with pytest.raises(type(error)):
            ends(error)


@pytest.mark.parametrize("kind", ["tmp", "work"])
def test_the_next_writer_removes_what_a_killed_one_left(tmp_path, kind):
    """Of this host when the process is gone, of another after a day; never what belongs to another output."""
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
    with stage.output_folder(out) as folder:
        (folder / "whole").write_text("a file")
        assert folder.parent == tmp_path
    with stage.scratch(out) as folder:
        assert folder.is_dir()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*stay, "out"])
    (tmp_path / f".out.{child.pid}-0123abcd@{here}.{kind}").write_text("a file")
    with pytest.raises(RuntimeError), stage.output_file(tmp_path / "out"):
        raise RuntimeError
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*stay, "out"])
