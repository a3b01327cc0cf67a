# All that needs a network but no GPU: run it beforehand on a cluster's login node.
rule prepare:
    input:
        expand(rules.base.output, model=GRID.models),
        expand(rules.data.output, model=GRID.models),
        rules.overlap.output,
        INPUTS.benchmarks(),
