"""What a table is: where its rows come from, its columns, its notes."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from eval.grid.layout import Grid
from eval.grid.results import GridResults
from eval.tables.formats import number, with_interval, write_table

Notes = Callable[[GridResults, pd.DataFrame], Iterable[str]]


@dataclass(frozen=True)
class Column:
    """A column that readers see: its title, and its values from the table's rows. It may be left out."""

    title: str
    values: Callable[[pd.DataFrame], Iterable[Any]]
    is_shown: Callable[[pd.DataFrame], bool] = lambda rows: True


def copied(name: str, title: str | None = None) -> Column:
    """A column as it is."""
    return Column(title or name, lambda rows: rows[name])


def figure(name: str, title: str | None = None, digits: int = 3) -> Column:
    """A number with so many digits; left out if the rows do not have it."""
    column = Column(title or name, lambda rows: [number(float(value), digits) for value in rows[name]])
    return only_if(has(name), column)


def interval(title: str, estimate: str, low: str = "low", high: str = "high", digits: int = 3) -> Column:
    """An estimate with its limits."""
    return Column(title, lambda rows: with_interval(rows, estimate, low, high, digits))


def has(name: str) -> Callable[[pd.DataFrame], bool]:
    """The condition that the rows have a column."""
    return lambda rows: name in rows


def only_if(condition: Callable[[pd.DataFrame], bool], column: Column) -> Column:
    """The column, left out unless the condition holds for the rows."""
    return replace(column, is_shown=condition)


@dataclass(frozen=True)
class Table:
    """A table. `rows` goes to NAME.csv; the columns of `layout(rows)`, with the notes, to NAME.md and NAME.tex.

    A note is a text, or a function of the results and the rows that yields texts. `title` is the report's.
    """

    name: str
    title: str
    rows: Callable[[GridResults], pd.DataFrame]
    columns: Sequence[Column]
    notes: Sequence[str | Notes]
    layout: Callable[[pd.DataFrame], pd.DataFrame] = lambda rows: rows
    is_made: Callable[[Grid], bool] = lambda grid: True

    def write(self, folder: Path, results: GridResults) -> None:
        """Write the three files."""
        rows = self.rows(results)
        laid_out = self.layout(rows)
        shown = pd.DataFrame(
            {column.title: list(column.values(laid_out)) for column in self.columns if column.is_shown(laid_out)}
        )
        notes = [text for note in self.notes for text in ([note] if isinstance(note, str) else note(results, rows))]
        write_table(folder, self.name, rows, shown, notes)
