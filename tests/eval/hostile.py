"""Texts that would control a browser, a terminal, a spreadsheet or LaTeX if they were not shown as plain text."""

from pathlib import Path

from eval.grid.layout import generation_file, policies
from salsa.runtime.jsonl import read_jsonl, write_jsonl
from tests.eval.synthetic import GRID

HOSTILE = [
    "<script>document.title = 'owned'</script>",
    "</script></style></title></div><script>document.title = 'owned'</script>",
    "<img src=x onerror=\"document.title = 'owned'\">",
    "<svg/onload=\"document.title = 'owned'\">",
    "<a href=\"javascript:document.title = 'owned'\" autofocus onfocus=\"document.title = 'owned'\">press</a>",
    '"><iframe srcdoc="<script>parent.document.title = \'owned\'</script>">',
    "{{ 7 * 7 }}{% raw %}",
    "\x1b[2J\x1b]0;owned\x07\x9b31m red",
    "user\N{RIGHT-TO-LEFT OVERRIDE}drawkcab\N{LEFT-TO-RIGHT ISOLATE}",
    "over\rwritten",
    '=HYPERLINK("http://example.org")',
    "\\input{/etc/passwd}$x$%",
    "a | b\nc",
    "NUL \0 here",
]
COMMANDS = ("\x1b", "\x9b", "\x07", "\0", "\r", "\N{RIGHT-TO-LEFT OVERRIDE}", "\N{LEFT-TO-RIGHT ISOLATE}")


def write_hostile_answers(results: Path) -> None:
    """Put the texts into all answers and questions of `synthetic.write_results`."""
    text = "\n".join(HOSTILE)
    for model in GRID.models:
        for policy in policies(GRID.methods, GRID.replicates):
            for benchmark in GRID.benchmarks:
                file = generation_file(results, model, policy.name, benchmark)
                turns = [{"user": text, "assistant": text}]
                write_jsonl(file, [{**row, "category": text, "turns": turns} for row in read_jsonl(file)])
