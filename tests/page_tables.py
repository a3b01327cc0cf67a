"""Lines of the tables in docs/answer.md and docs/beyond.md, computed from the committed tables of their grids."""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path

from eval.report.claims import shown
from eval.tables.formats import number

ROOT = Path(__file__).parents[1]
Row = dict[str, str]


def read(grid: str, name: str) -> list[Row]:
    """A table of the mini world in results/GRID."""
    with (ROOT / "results" / grid / "mini/tables" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def limits(row: Row, name: str) -> str:
    """An estimate with its interval."""
    if not row[name]:
        return "–"
    return f"{shown(row[name])} [{shown(row['low'])}, {shown(row['high'])}]"


def assert_page_has(page: Path, lines: Iterable[str]) -> None:
    """Check that these lines stand on a page, together."""
    block = "\n".join(lines)
    assert f"\n{block}\n" in page.read_text(encoding="utf-8"), f"{page.name} should have\n{block}"


def assert_page_says(page: Path, sentences: Iterable[str]) -> None:
    """Check that a page's text has these sentences, wherever its lines break."""
    text = " ".join(page.read_text(encoding="utf-8").split())
    assert [sentence for sentence in sentences if sentence not in text] == []


def line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def over_all(rows: list[Row]) -> list[Row]:
    """Over all models and benchmarks."""
    return [row for row in rows if row["model"] == row["benchmark"] == "all"]


def verdicts(grid: str, families: tuple[str, ...]) -> list[str]:
    """One line for each condition of each claim."""
    lines = []
    for row in over_all(read(grid, "claims")):
        if row["family"] in families:
            first = row["condition"] == "1"
            claim, verdict, holm = (row[name] if first else "" for name in ("says", "verdict", "verdict_holm"))
            figure = f"{row['figure']}: {limits(row, 'estimate')}"
            lines.append(f"| {claim} | {verdict} | {holm} | {figure} |")
    return lines


def by_beta(grid: str, betas: Mapping[str, Iterable[float]], measures: Iterable[str]) -> list[str]:
    """Means over the models and replicates of a method at a beta: its KL and these measures."""
    rows = read(grid, "frontier")
    lines = []
    for method, of_method in betas.items():
        for beta in of_method:
            own = [row for row in rows if row["method"] == method and float(row["beta"]) == beta]
            assert [row["replicates"] for row in own] == ["10"] * 3
            means = (sum(float(row[name]) for row in own) / len(own) for name in ("kl_sft", *measures))
            lines.append(line(method, f"{beta:g}", *map(number, means)))
    return lines
