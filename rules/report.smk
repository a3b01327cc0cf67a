# The page that puts tables, figures and sample answers together.


rule report:
    input:
        tables=rules.tables.output,
        figures=rules.figures.output,
        generations=expand(
            f"{RESULTS}/generations/{{model}}/{{policy}}/{{benchmark}}.jsonl",
            model=GRID.models,
            policy=POLICIES,
            benchmark=GRID.benchmarks,
        ),
        judgments=expand(
            f"{RESULTS}/judgments/{{model}}/{{benchmark}}/{{comparison}}.jsonl",
            model=GRID.models,
            benchmark=GRID.benchmarks,
            comparison=GRID.comparisons,
        ),
        calibration=calibration_card(),
        assumptions=assumptions_file(),
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
        results=results_folder,
        settings=settings(grid_of(GRID)),
        calibration=calibration_option(),
        assumptions=assumptions_option(),
    shell:
        "python -m eval report --results {params.results:q} --settings {params.settings:q} "
        "{params.calibration:q} {params.assumptions:q} --out {output.html:q} > {log:q} 2>&1"
