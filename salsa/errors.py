"""The one exception for what a user can mend: its text is the whole message."""


class UserError(Exception):
    """Wrong input: the text names what is wrong, where, and what to do; it is printed without a traceback."""
