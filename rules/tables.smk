# Tables and figures, from stored results alone: no model, no judge.
# Their run.json are named as outputs because git keeps the tables and figures of one run, and not those.


rule tables:
    input:
        MEASURED,
    output:
        f"{RESULTS}/tables/run.json",
        f"{RESULTS}/tables/headline.csv",
    log:
        f"{LOGS}/tables.log",
    conda:
        ENVIRONMENT
    params:
        results=results_folder,
        settings=settings(grid_of(GRID)),
        seed=GRID.seed,
        out=output_folder,
    shell:
        "python -m eval tables --results {params.results:q} --settings {params.settings:q} --seed {params.seed} "
        "--out {params.out:q} > {log:q} 2>&1"


rule figures:
    input:
        MEASURED,
    output:
        f"{RESULTS}/figures/run.json",
    log:
        f"{LOGS}/figures.log",
    conda:
        ENVIRONMENT
    params:
        results=results_folder,
        settings=settings(grid_of(GRID)),
        seed=GRID.seed,
        out=output_folder,
    shell:
        "python -m eval figures --results {params.results:q} --settings {params.settings:q} --seed {params.seed} "
        "--out {params.out:q} > {log:q} 2>&1"
