"""What a terminal of a given width shows at the end of a run."""

import pytest

from eval.report.claims import INDENT
from eval.report.terminal import wrap

LINES = [
    "undecided     SALSA moves further from SFT 1 than PPO, at the same beta",
    "              difference in KL(policy, SFT 1) 0.001 [-0.001, 0.003], claimed above 0",
    "",
]


@pytest.mark.parametrize("columns", [30, 45, 60, 61, 75, 200])
def test_lines_are_broken_between_words_but_not_in_an_interval(columns):
    text = wrap(LINES, columns, INDENT + 2)
    assert text.split() == " ".join(LINES).split()
    assert "[-0.001, 0.003]" in text
    lines = text.split("\n")
    assert max(map(len, lines)) <= max(columns, INDENT + 2 + len("[-0.001, 0.003],")) and lines[-1] == ""
    assert all(line.startswith(("undecided", " " * INDENT)) for line in lines[:-1])


@pytest.mark.parametrize("columns", [None, 1, 29])
def test_without_a_terminal_or_in_a_tiny_one_lines_stay(columns):
    assert wrap(LINES, columns) == "\n".join(LINES)
