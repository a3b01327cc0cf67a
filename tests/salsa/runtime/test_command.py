"""Messages and exit status of a command that does not end well."""

import errno
import os
import sys

import pytest

from salsa.runtime import command


@pytest.fixture
def ends(monkeypatch, capsys):
    """ends(error): exit status and standard error of a command that raises it."""

    def run(error: BaseException) -> tuple[int, str]:
        def raises(arguments):
            raise error

        stage = type("Stage", (), {"stage": staticmethod(lambda parser: None), "run": staticmethod(raises)})
        monkeypatch.setattr(sys, "argv", ["x", "it"])
        monkeypatch.setattr(command.importlib, "import_module", lambda name: stage)
        status = command.main("x", {"it": ("room.stage", "help")})
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
def test_unwritable_disk_is_one_line(ends, error, line):
    status, said = ends(error)
    assert status == 1 and said.startswith(f"error: {line}") and said.count("\n") == 1
    assert said.endswith(", then rerun; finished outputs are kept\n")


def test_ctrl_c_is_one_line_with_the_shells_status(ends):
    assert ends(KeyboardInterrupt()) == (130, "interrupted: rerun the same command to resume\n")


def test_bug_keeps_its_traceback(ends):
    for error in (FileNotFoundError(errno.ENOENT, "No such file", "x"), ZeroDivisionError("division")):
        with pytest.raises(type(error)):
            ends(error)
