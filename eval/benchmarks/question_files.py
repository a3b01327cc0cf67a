"""What readers of questions share: fields that have to be there, and texts."""

from eval.benchmarks.base import Row, Texts


def text(row: Row, key: str) -> str:
    """A field that has to hold a text."""
    if not isinstance(row[key], str) or not row[key].strip():
        raise ValueError(f"{key}: a text that is not empty is expected")
    return str(row[key])


def texts(row: Row, key: str) -> Texts:
    """A field that has to hold a list of texts."""
    value = row[key]
    if not isinstance(value, list) or not value or not all(isinstance(part, str) and part.strip() for part in value):
        raise ValueError(f"{key}: a list of texts that are not empty is expected")
    return tuple(value)
