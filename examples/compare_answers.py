"""Compare two models' answers with a judge: the win rate with its interval.

    python examples/compare_answers.py answers.jsonl --judge config/paper.yaml#judge

Each line of answers.jsonl is {"question": …, "a": …, "b": …}.
"""

import argparse
from pathlib import Path

from eval.judging.library import compare
from salsa.config.judge import Judge
from salsa.runtime.jsonl import read_jsonl
from salsa.runtime.settings import load_settings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("answers", type=Path)
    parser.add_argument("--judge", required=True, help="a judge section: JSON or FILE.yaml#judge")
    parser.add_argument("--ledger", type=Path, default=Path("ledger"))
    arguments = parser.parse_args()
    rows = list(read_jsonl(arguments.answers))
    questions, a, b = ([row[key] for row in rows] for key in ("question", "a", "b"))
    result = compare(questions, a, b, load_settings(arguments.judge, Judge, "--judge"), ledger=arguments.ledger)
    print(f"win rate of a against b: {result}")
    print(result.table()[["question_id", "points", "weight", "consistent"]].to_string(index=False))


if __name__ == "__main__":
    main()
