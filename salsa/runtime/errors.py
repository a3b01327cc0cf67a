"""Errors that end a command with one line instead of a traceback."""

import errno

RESUBMIT = 75  # EX_TEMPFAIL of sysexits.h


DISK_FAULTS = {
    errno.ENOSPC: "make room there",
    errno.EDQUOT: "make room in your quota there",
    errno.EROFS: "it is mounted read-only: name another folder in the config's paths",
    errno.EACCES: "name a folder that you may write to in the config's paths",
}
# Libraries written in Rust or C++ raise their own exception types, with these words in the message.
FULL = ("No space left on device", "os error 28")


def disk_fault(error: Exception) -> str | None:
    """A one-line message if the error comes from the disk (full, read-only, no permission), else None."""
    if isinstance(error, OSError) and error.errno in DISK_FAULTS:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}: {DISK_FAULTS[error.errno]}, then rerun; finished outputs are kept"
    if any(text in str(error) for text in FULL):
        return f"{FULL[0]}: {DISK_FAULTS[errno.ENOSPC]}, then rerun; finished outputs are kept"
    return None


class UserError(Exception):
    """A mistake that the user can fix. The text says what is wrong, where, and what to do."""


class Interrupted(Exception):
    """The stage stopped on request and saved its state; rerunning it resumes. Exit status RESUBMIT."""
