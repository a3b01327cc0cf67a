"""The claims and their verdicts, as the terminal and the report show them."""

from collections import Counter
from pathlib import Path

from eval.grid.layout import ALL_MODELS
from eval.report.headline import Row, read_table
from eval.tables.formats import number

VERDICTS = ("supported", "contradicted", "undecided", "not measured")
INDENT = max(map(len, VERDICTS)) + 2


def read_claims(results: Path) -> list[Row]:
    """Rows of claims.csv over all models and benchmarks: one for each condition of each claim."""
    return [row for row in read_table(results, "claims") if row["model"] == row["benchmark"] == ALL_MODELS]


def figure(row: Row) -> str:
    """A condition's figure with its interval and rule."""
    if not row["estimate"]:
        return f"{row['figure']}: not measured"
    limits = f"[{shown(row['low'])}, {shown(row['high'])}]" if row["low"] else "without an interval"
    return f"{row['figure']} {shown(row['estimate'])} {limits}, claimed {row['side']} {float(row['threshold']):g}"


def shown(text: str) -> str:
    """A figure with three digits."""
    return number(float(text))


def lines(rows: list[Row]) -> list[str]:
    """Each claim with its verdict, and its figures below."""
    text = []
    for row in rows:
        if row["condition"] == "1":
            text.append(f"{row['verdict']:<{INDENT}}{row['says']}")
        text.append(" " * INDENT + figure(row))
    return text


def sentence(rows: list[Row]) -> str:
    """How many claims have which verdict, also with Holm's correction."""
    claims = [row for row in rows if row["condition"] == "1"]
    alone, corrected = (counts([row[name] for row in claims]) for name in ("verdict", "verdict_holm"))
    if not any("runs" in row["over"] for row in rows):
        return f"Of {len(claims)} claims {alone} (one replicate says nothing about other training runs)."
    confidence = f"{float(claims[0]['confidence']):.0%}"
    correction = "the same" if alone == corrected else corrected
    return (
        f"Of {len(claims)} claims {alone} ({confidence} intervals over training runs and questions; with Holm's "
        f"correction {correction})."
    )


def counts(verdicts: list[str]) -> str:
    """\"1 is supported, 2 are undecided\"."""
    found = Counter(verdicts)
    parts = [f"{found[word]} {'is' if found[word] == 1 else 'are'} {word}" for word in VERDICTS if found[word]]
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))
