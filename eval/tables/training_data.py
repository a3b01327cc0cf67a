"""Tables of what the models were trained on.

data       how much of each data set is used, and why the rest is not
overlap    benchmark questions that stand among the training prompts
"""

from pathlib import Path

from eval.benchmarks.overlap import RUN_OF_WORDS, SHARE_ALIKE
from eval.tables import collect
from eval.tables.formats import number, write_table
from eval.tables.grid import Grid
from salsa.data.rows import CHOICES, FAULTS


def write_data(folder: Path, results: Path, grid: Grid) -> None:
    sets = collect.data_sets(results, grid)
    shown = sets[["model", "set", "source", "rows", "used"]].copy()
    for reason in (*CHOICES, *FAULTS, "cut"):
        shown[reason.replace("_", " ")] = sets[reason]
    shown["limit"] = sets["limit"]
    shown["tokens a row"] = [
        number(tokens / used, 0) for tokens, used in zip(sets["tokens"], sets["used"], strict=True)
    ]
    notes = [
        "Left out: empty, a turn says nothing; equal, both answers are the same; tied, both scores are the same; too "
        "long, more tokens than the limit (of a demonstration: no word of the assistant is within it); malformed, a "
        "turn has no role or no text; roles, an unknown role, no turn of the user, or no answer at the end; "
        "mismatched, chosen and rejected do not answer the same dialogue; refused, the chat template does not write "
        "it. Cut: used up to the limit. Tokens a row: of what is used; a pair's are those of both dialogues.",
    ]
    write_table(folder, "data", sets, shown, notes)
    found = collect.overlap(results)
    shown = found[["set", "benchmark", "questions"]].copy()
    for kind in ("equal", "alike"):
        shares = zip(found[kind], found["questions"], strict=True)
        shown[kind] = [f"{count} ({count / questions:.1%})" for count, questions in shares]
    notes = [
        "Questions among the prompts that models are trained on. Equal: a question's first turn is a user's turn, but "
        f"for case and punctuation. Alike, and not equal: at least {SHARE_ALIKE:.0%} of a question's words are in "
        f"runs of {RUN_OF_WORDS} words that one training row's user turns hold too. Nothing is left out for it; "
        "overlap.json has the ids.",
    ]
    write_table(folder, "overlap", found, shown, notes)
