# A misspelt target ends the run with the nearest names. Included last, when all rules are known.
import re

from snakemake.cli import get_argument_parser

from salsa.workflow.targets import nearest, outputs


def check_targets():
    """Ends this run where a target is no output of this grid, with those that are most like it."""
    names = [rule.name for rule in workflow.rules]
    values = {
        "model": list(GRID.models),
        "method": TRAINED,
        "policy": POLICIES,
        "benchmark": list(GRID.benchmarks),
        "comparison": list(GRID.comparisons),
        "seed": [str(seed) for seed in sorted({*GRID.sft.seeds, *GRID.rl_seeds})],
    }
    # Snakemake knows its targets only after it has read the rules.
    asked, _ = get_argument_parser().parse_known_args(sys.argv[1:])
    for target in asked.targets:
        known = target in names or any(rule.is_producer(target) for rule in workflow.rules) or Path(target).exists()
        if not known:
            patterns = [
                re.sub(r"\{(\w+),[^}]*\}", r"{\1}", str(path)) for rule in workflow.rules for path in rule.output
            ]
            found = nearest(target, [*names, *outputs(patterns, values)])
            hint = f"did you mean {' or '.join(found)}?" if found else "snakemake --list names the rules"
            sys.exit(f"error: {target}: this grid ({GRID.grid}) makes no such file: {hint}")


check_targets()
