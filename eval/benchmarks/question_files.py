"""Helpers to read question files: required text fields."""

from eval.benchmarks.base import Row, Texts


def text(row: Row, key: str) -> str:
    """A required text field; a ValueError if it is not a non-empty text."""
    if not isinstance(row[key], str) or not row[key].strip():
        raise ValueError(f"{key}: expected a non-empty text")
    return str(row[key])


def texts(row: Row, key: str) -> Texts:
    """A required list of texts; a ValueError if it is not a non-empty list of non-empty texts."""
    value = row[key]
    if not isinstance(value, list) or not value or not all(isinstance(part, str) and part.strip() for part in value):
        raise ValueError(f"{key}: expected a list of non-empty texts")
    return tuple(value)
