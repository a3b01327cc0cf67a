# A misspelt target ends the run with the nearest names. Included last, when all rules are known.
from salsa.workflow.targets import check_targets

check_targets(
    workflow,
    GRID.grid,
    {
        "model": list(GRID.models),
        "method": PATHS.trained,
        "policy": list(PATHS.policies),
        "benchmark": list(GRID.benchmarks),
        "comparison": list(GRID.comparisons),
        "replicate": PATHS.suffixes,
        "seed": [str(seed) for seed in PATHS.seeds],
    },
)
