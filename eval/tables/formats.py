"""Write data frames as CSV (for programs), Markdown and LaTeX (for readers)."""

import html
import math
from pathlib import Path
from typing import Any

import pandas as pd

from salsa.runtime.texts import visible

CSV_DIGITS = 6
NOTHING = "–"  # in place of a missing figure
FORMULA = ("=", "+", "-", "@", "\t")
LATEX = {"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}"}
LATEX |= {"^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "±": r"$\pm$"}


def number(value: Any, digits: int = 3) -> str:
    """A figure as text; a dash for None and NaN. Never "-0.000"."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return NOTHING
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return str(value)
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def with_interval(
    frame: pd.DataFrame, estimate: str, low: str = "low", high: str = "high", digits: int = 3
) -> list[str]:
    """One text per row, `0.612 [0.550, 0.670]`; a dash if not measured, and a remark if there is only one question."""
    counts = frame["n"] if "n" in frame else [None] * len(frame)

    def text(e: float, lo: float, hi: float, n: int | None) -> str:
        if math.isnan(e):
            return number(e)
        if math.isnan(lo) and n == 1:
            return f"{number(e, digits)} (one question: no interval)"
        return f"{number(e, digits)} [{number(lo, digits)}, {number(hi, digits)}]"

    return [text(*row) for row in zip(frame[estimate], frame[low], frame[high], counts, strict=True)]


def with_control(frame: pd.DataFrame) -> list[str]:
    """The length-controlled win rate as text, marked if it is far from the raw one."""
    texts = with_interval(frame, "lc_win_rate", "lc_low", "lc_high")
    return [text + (" (far off)" if far else "") for text, far in zip(texts, frame["lc_far"], strict=True)]


def one_line(text: Any) -> str:
    """The text on one line, with control characters escaped."""
    return visible(str(text)).replace("\n", " ")


def latex_text(text: str) -> str:
    """Escape text for LaTeX."""
    return "".join(LATEX.get(character, character) for character in one_line(text))


def markdown_text(text: Any) -> str:
    """Escape text for Markdown: HTML and the cell separator."""
    return html.escape(one_line(text), quote=False).replace("|", r"\|")


def csv_text(value: Any) -> Any:
    """Prefix text that a spreadsheet would read as a formula with a quotation mark."""
    if not isinstance(value, str):
        return value
    text = visible(value)
    return f"'{text}" if text.startswith(FORMULA) else text


def markdown(frame: pd.DataFrame, notes: list[str]) -> str:
    """A Markdown table followed by notes."""
    cells = [[markdown_text(value) for value in row] for row in frame.itertuples(index=False)]
    lines = ["| " + " | ".join(map(markdown_text, frame.columns)) + " |", "|" + "---|" * len(frame.columns)]
    lines += ["| " + " | ".join(row) + " |" for row in cells]
    return "\n".join([*lines, "", *map(markdown_text, notes)]) + "\n"


def latex(frame: pd.DataFrame, notes: list[str]) -> str:
    """A booktabs tabular preceded by the notes as comments."""
    lines = [f"% {one_line(note)}" for note in notes]
    lines += [rf"\begin{{tabular}}{{{'l' * len(frame.columns)}}}", r"\toprule"]
    lines += [" & ".join(latex_text(str(name)) for name in frame.columns) + r" \\", r"\midrule"]
    lines += [" & ".join(latex_text(str(value)) for value in row) + r" \\" for row in frame.itertuples(index=False)]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def write_table(folder: Path, name: str, raw: pd.DataFrame, shown: pd.DataFrame, notes: list[str]) -> None:
    """Write `raw` to NAME.csv (rounded to six digits), and `shown` to NAME.md and NAME.tex."""
    raw.round(CSV_DIGITS).map(csv_text).to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")
    (folder / f"{name}.md").write_text(markdown(shown, notes), encoding="utf-8")
    (folder / f"{name}.tex").write_text(latex(shown, notes), encoding="utf-8")
