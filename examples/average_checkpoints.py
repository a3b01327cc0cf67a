"""Average checkpoints of one model: a soup, equally or with weights.

python examples/average_checkpoints.py sft/1 sft/2 --out soup
python examples/average_checkpoints.py sft/1 sft/2 --weights 0.7 0.3 --out soup
"""

import argparse

from salsa.soups.library import average_checkpoints


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+")
    parser.add_argument("--weights", type=float, nargs="+")
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()
    checkpoints = arguments.checkpoints
    if arguments.weights:
        checkpoints = dict(zip(arguments.checkpoints, arguments.weights, strict=True))
    print(average_checkpoints(checkpoints, arguments.out))


if __name__ == "__main__":
    main()
