"""The exceptions whose text is all that a user sees: what they can mend, and what needs only the same command again."""

import errno

RESUBMIT = 75  # EX_TEMPFAIL of sysexits.h


DISK_FAULTS = {
    errno.ENOSPC: "make room there",
    errno.EDQUOT: "make room in your quota there",
    errno.EROFS: "it is mounted read-only: name another folder in the config's paths",
    errno.EACCES: "name a folder that you may write to in the config's paths",
}
# Libraries that write in another language say it in words of their own.
FULL = ("No space left on device", "os error 28")


def disk_fault(error: Exception) -> str | None:
    """A line for a user where an error is the disk's fault; None where it is another's."""
    if isinstance(error, OSError) and error.errno in DISK_FAULTS:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}: {DISK_FAULTS[error.errno]}, and run again: what is whole stays"
    if any(text in str(error) for text in FULL):
        return f"{FULL[0]}: {DISK_FAULTS[errno.ENOSPC]}, and run again: what is whole stays"
    return None


class UserError(Exception):
    """Wrong input: the text names what is wrong, where, and what to do; it is printed without a traceback."""


class Interrupted(Exception):
    """A stage stopped as it was asked to, and goes on from there when it runs again; exit status RESUBMIT."""
