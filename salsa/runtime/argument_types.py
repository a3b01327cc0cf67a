"""Types of command-line arguments."""

import argparse


def count(text: str) -> int:
    """Parse a command-line number of at least 1."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{number}: at least 1")
    return number


def positive(text: str) -> float:
    """Parse a number above 0."""
    if not (number := float(text)) > 0:
        raise argparse.ArgumentTypeError(f"{text}: above 0")
    return number


def share(text: str) -> float:
    """Parse a number between 0 and 1."""
    if not 0 < (number := float(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text}: between 0 and 1, for example 0.95")
    return number
