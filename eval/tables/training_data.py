"""Tables about the training data.

data       rows of each data set that are used, and reasons for leaving rows out
overlap    benchmark questions among the training prompts
"""

from pathlib import Path

from eval.benchmarks.overlap import RUN_OF_WORDS, SHARE_ALIKE
from eval.tables import collect
from eval.tables.formats import number, write_table
from eval.tables.grid import Grid
from salsa.data.rows import CHOICES, FAULTS


def write_data(folder: Path, results: Path, grid: Grid) -> None:
    """Write data and overlap."""
    sets = collect.data_sets(results, grid)
    shown = sets[["model", "set", "source", "rows", "used"]].copy()
    for reason in (*CHOICES, *FAULTS, "cut"):
        shown[reason.replace("_", " ")] = sets[reason]
    shown["limit"] = sets["limit"]
    shown["tokens a row"] = [
        number(tokens / used, 0) for tokens, used in zip(sets["tokens"], sets["used"], strict=True)
    ]
    notes = [
        "Left out: empty, a turn is empty; equal, both answers are the same; tied, both answers have the same score; "
        "too long, more tokens than the limit (demonstrations: no assistant token within it); malformed, a turn has no "
        "role or no text; roles, an unknown role, no user turn, or no answer at the end; mismatched, chosen and "
        "rejected answer different dialogues; refused, the chat template raises an error. Cut: used, but truncated at "
        "the limit. Tokens a row: over used rows; both dialogues of a pair count.",
    ]
    write_table(folder, "data", sets, shown, notes)
    overlap = collect.overlap(results)
    shown = overlap[["set", "benchmark", "questions"]].copy()
    for kind in ("equal", "alike"):
        shares = zip(overlap[kind], overlap["questions"], strict=True)
        shown[kind] = [f"{count} ({count / questions:.1%})" for count, questions in shares]
    notes = [
        "Benchmark questions among the training prompts. Equal: the first turn equals a user turn, up to case and "
        f"punctuation. Alike, and not equal: at least {SHARE_ALIKE:.0%} of the question's words are in "
        f"{RUN_OF_WORDS}-grams that also occur in the user turns of one training row. No question is removed for this; "
        "overlap.json has the ids.",
    ]
    write_table(folder, "overlap", overlap, shown, notes)
