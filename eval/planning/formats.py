"""Times, sizes and tables as the plan prints them."""

from collections.abc import Iterable

from eval.costs.work import GIGABYTE


def duration(seconds: float) -> str:
    """A time in days, hours, minutes or seconds."""
    for unit, length, minimum in (("d", 86400, 2), ("h", 3600, 1), ("min", 60, 1)):
        if seconds >= minimum * length:
            value = seconds / length
            return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"
    return f"{seconds:.0f} s"


def size(count: float) -> str:
    """A number of bytes in decimal units."""
    for unit, length in (("TB", 1e12), ("GB", GIGABYTE), ("MB", 1e6)):
        if count >= length:
            return f"{count / length:.3g} {unit}"
    return "0" if not count else "< 1 MB"


def align_columns(rows: Iterable[tuple[str, ...]], left: int = 2) -> list[str]:
    """Rows as lines of text; the first `left` columns are aligned left, the others right."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]

    def pad(text: str, column: int) -> str:
        return text.ljust(widths[column]) if column < left else text.rjust(widths[column])

    return ["  ".join(pad(text, column) for column, text in enumerate(row)).rstrip() for row in rows]
