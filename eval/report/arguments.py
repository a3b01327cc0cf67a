"""The arguments of `report` and `show`. Imports nothing heavy: help and errors come at once."""

import argparse
from pathlib import Path


def page(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--results", type=Path, required=True, help="the grid's results folder")
    parser.add_argument("--settings", required=True, help="a Grid (eval/grid/layout.py): JSON or FILE.yaml")
    parser.add_argument(
        "--calibration", type=Path, metavar="CARD.json", help="the judge's card, made by python -m eval calibrate"
    )
    parser.add_argument(
        "--assumptions", type=Path, metavar="FILE.yaml", help="the config's assumptions; needs --values"
    )
    parser.add_argument("--values", default="{}", help="the grid's settings by dotted name: JSON or FILE.yaml")
    parser.add_argument("--ledger", type=Path, metavar="FOLDER", help="the ledger, for the judge's texts")
    parser.add_argument("--out", type=Path, required=True)


def terminal(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--results", type=Path, required=True, help="the grid's results folder")
    parser.add_argument(
        "--below-floor", choices=("fail", "mark"), default="mark", help="what to do about cells with too few verdicts"
    )
