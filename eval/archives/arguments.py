"""The arguments of `calibrate`, `render`, `import`, `parse` and `published`.

Imports nothing heavy: help and errors come at once.
"""

import argparse
from pathlib import Path

from eval.archives.formats import FORMATS, UNKNOWN
from eval.protocols.verdicts import READERS
from eval.statistics.arguments import add_resampling_arguments
from salsa.runtime.argument_types import count


def calibrate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--archive", type=Path, required=True, help="a ledger with verdicts and their prompts")
    parser.add_argument("--settings", required=True, help="the config's judge section: JSON or FILE.yaml#judge")
    parser.add_argument("--ledger", type=Path, required=True, help="folder that stores calls; may be shared")
    parser.add_argument(
        "--items", type=count, help="answers or matches to draw for each benchmark and archived judge; default: all"
    )
    parser.add_argument("--templates", metavar="T.jsonl", help="FastChat's judge_prompts.jsonl, for system prompts")
    add_resampling_arguments(parser)
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--out", type=Path)
    target.add_argument(
        "--estimate", action="store_true", help="print calls, tokens and cost without calling the judge"
    )


def render(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--protocol", required=True, choices=READERS)
    parser.add_argument("--questions", type=Path, required=True, metavar="Q.jsonl")
    parser.add_argument(
        "--templates", metavar="T.jsonl", help="templates in the format of FastChat's judge_prompts.jsonl"
    )
    parser.add_argument("--references", type=Path, metavar="R.jsonl", help="reference answers in FastChat's format")
    parser.add_argument("--answers", type=Path, required=True, metavar="A.jsonl")
    parser.add_argument(
        "--answers-b", type=Path, metavar="B.jsonl", help="answers of the other side; not for single answers"
    )


def importing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", required=True, choices=FORMATS, help="format of the file (docs/formats.md)")
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument("--ledger", type=Path, required=True, help="ledger folder to add the verdicts to")
    parser.add_argument("--judge", default=UNKNOWN, metavar="NAME", help="the judge, if the file does not say")
    parser.add_argument(
        "--questions",
        type=Path,
        metavar="Q.jsonl",
        help="question file, for categories; not needed for MT-Bench's own questions",
    )


def parse(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--protocol", required=True, choices=READERS)
    parser.add_argument("file", type=Path, metavar="FILE.jsonl", help="lines with a field `text`")


def published(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--questions", type=Path, required=True, help="the mini world's MT-Bench questions")
    parser.add_argument("--settings", required=True, help="a judge section of kind gold: JSON or FILE.yaml#section")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
