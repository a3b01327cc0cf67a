# The HTML report: tables, figures and sample answers on one page.


rule report:
    input:
        tables=rules.tables.output,
        figures=rules.figures.output,
        answers=expand(ANSWERS, model=GRID.models, policy=PATHS.answering_policies, benchmark=GRID.benchmarks),
        judgments=expand(
            JUDGMENTS,
            model=GRID.models,
            benchmark=GRID.benchmarks,
            comparison=GRID.comparisons,
            replicate=PATHS.suffixes,
        ),
        calibration=INPUTS.calibration(),
        assumptions=INPUTS.assumptions(),
    output:
        html=report(
            f"{RESULTS}/report.html",
            category="Report",
            labels={"page": "report"},
            caption="captions/report.rst",
        ),
        run=f"{RESULTS}/report.run.json",
    log:
        f"{LOGS}/report.log",
    conda:
        ENVIRONMENT
    params:
        results=lambda wildcards: RESULTS,
        ledger=PATHS.ledger,
        settings=SETTINGS.path("tables"),
        content=SETTINGS.content("tables"),
        calibration=OPTIONS.calibration(),
        assumptions=OPTIONS.assumptions(SETTINGS.path("assumptions")),
        assumptions_content=SETTINGS.content("assumptions") if GRID.assumptions else "",
    shell:
        "python -m eval report --results {params.results:q} --settings {params.settings:q} "
        "{params.calibration:q} {params.assumptions:q} --ledger {params.ledger:q} --out {output.html:q} > {log:q} 2>&1"
