# All that needs a network and no GPU: a cluster's login node can do it beforehand.
rule prepare:
    input:
        expand(rules.base.output, model=GRID.models),
        expand(rules.data.output, model=GRID.models),
        rules.overlap.output,
        [path for benchmark in GRID.benchmarks.values() for path in of_benchmark(benchmark)],
