"""Command `parse`: read verdicts from your own judge texts, with the grammar that the stages use.

Reads lines with a field `text` (and `finish_reason` if known) and prints them with `outcome` (verdict, tie, unparsed,
cut, refused, failed) and `value` (a rating, "A", "B", or one of A>>B, A>B, A=B, B>A, B>>A; null without a verdict and
for [[C]]).
"""

import argparse
import json
import sys

from eval.protocols.verdicts import read
from salsa.runtime.errors import UserError
from salsa.runtime.jsonl import read_jsonl


def run(arguments: argparse.Namespace) -> None:
    for number, row in enumerate(read_jsonl(arguments.file), 1):
        text = row.get("text", "")
        if "text" not in row or not isinstance(text, str | None):
            raise UserError(
                f"{arguments.file}:{number}: no field `text` with a judge's text: add it or remove the line"
            )
        outcome, value = read(arguments.protocol, text, row.get("finish_reason"))
        sys.stdout.write(json.dumps({**row, "outcome": outcome, "value": value}, ensure_ascii=False) + "\n")
