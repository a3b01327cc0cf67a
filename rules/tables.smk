# Tables and figures, from stored results alone: no model, no judge.
# Their run.json are named as outputs because git keeps the tables and figures of one run, and not those.


rule tables:
    input:
        MEASURED,
    output:
        f"{RESULTS}/tables/run.json",
        report(
            f"{RESULTS}/tables/headline.csv",
            category="Tables",
            labels={"table": "headline"},
            caption="captions/headline.rst",
        ),
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
        report(
            f"{RESULTS}/figures/win_rates.svg",
            category="Figures",
            labels={"figure": "win rates"},
            caption="captions/win_rates.rst",
        ),
        report(
            f"{RESULTS}/figures/soup.svg",
            category="Figures",
            labels={"figure": "soups"},
            caption="captions/soup.rst",
        ),
        report(
            f"{RESULTS}/figures/training.svg",
            category="Figures",
            labels={"figure": "training curves"},
            caption="captions/training.rst",
        ),
        report(
            f"{RESULTS}/figures/reward_kl.svg",
            category="Figures",
            labels={"figure": "reward against KL"},
            caption="captions/reward_kl.rst",
        ),
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
