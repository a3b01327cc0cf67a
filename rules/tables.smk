# Tables and figures, from stored results only: without a model or a judge.
# Their run.json files are outputs, because git holds the tables and figures of one run but not those.


rule tables:
    input:
        INPUTS.measured(),
    output:
        f"{RESULTS}/tables/run.json",
        report(
            f"{RESULTS}/tables/claims.csv",
            category="Tables",
            labels={"table": "claims"},
            caption="captions/claims.rst",
        ),
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
        results=lambda wildcards: RESULTS,
        settings=SETTINGS.path("tables"),
        content=SETTINGS.content("tables"),
        out=lambda wildcards, output: str(Path(output[0]).parent),
    shell:
        "python -m eval tables --results {params.results:q} --settings {params.settings:q} "
        "--out {params.out:q} > {log:q} 2>&1"


rule figures:
    input:
        INPUTS.measured(),
    output:
        f"{RESULTS}/figures/run.json",
        report(
            f"{RESULTS}/figures/win_rates.svg",
            category="Figures",
            labels={"figure": "win rates"},
            caption="captions/win_rates.rst",
        ),
        report(
            f"{RESULTS}/figures/improvements.svg",
            category="Figures",
            labels={"figure": "differences in reward and KL"},
            caption="captions/improvements.rst",
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
        results=lambda wildcards: RESULTS,
        settings=SETTINGS.path("tables"),
        content=SETTINGS.content("tables"),
        out=lambda wildcards, output: str(Path(output[0]).parent),
    shell:
        "python -m eval figures --results {params.results:q} --settings {params.settings:q} "
        "--out {params.out:q} > {log:q} 2>&1"
