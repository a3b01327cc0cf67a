"""The exceptions whose text is all that a user sees: what they can mend, and what needs only the same command again."""

RESUBMIT = 75  # EX_TEMPFAIL of sysexits.h


class UserError(Exception):
    """Wrong input: the text names what is wrong, where, and what to do; it is printed without a traceback."""


class Interrupted(Exception):
    """A stage stopped as it was asked to, and goes on from there when it runs again; exit status RESUBMIT."""
