# Judgments, one job per cell (model, benchmark, comparison), and grades of single answers.
#
# All jobs share the ledger of judge calls. It is not an output, because Snakemake deletes outputs and calls cost money.
# Each job has judge.concurrency calls in flight; --resources judge=N limits how many jobs call the judge at a time.


rule judge:
    input:
        answers=INPUTS.compared_answers,
        benchmark=INPUTS.benchmark,
    output:
        JUDGMENTS,
    log:
        f"{LOGS}/judge/{{model}}/{{benchmark}}/{{comparison}}{{replicate}}.log",
    conda:
        ENVIRONMENT
    resources:
        judge=1,
    params:
        answers=f"{RESULTS}/generations/{{model}}",
        pairs=OPTIONS.pairs,
        benchmark=SETTINGS.path("benchmarks#{benchmark}"),
        benchmark_content=SETTINGS.content("benchmarks#{benchmark}"),
        settings=SETTINGS.path("judge"),
        content=SETTINGS.content("judge"),
        ledger=PATHS.ledger,
        seed=GRID.seed,
    shell:
        "python -m eval judge --generations {params.answers:q} {params.pairs:q} "
        "--benchmark {wildcards.benchmark:q}={params.benchmark:q} --settings {params.settings:q} --seed {params.seed} "
        "--ledger {params.ledger:q} --out {output:q} > {log:q} 2>&1"


rule grade:
    input:
        answers=ANSWERS,
        benchmark=INPUTS.benchmark,
    output:
        GRADES,
    log:
        f"{LOGS}/grade/{{model}}/{{policy}}/{{benchmark}}.log",
    conda:
        ENVIRONMENT
    resources:
        judge=1,
    params:
        answers=lambda wildcards, input: str(Path(input.answers).parents[1]),
        benchmark=SETTINGS.path("benchmarks#{benchmark}"),
        benchmark_content=SETTINGS.content("benchmarks#{benchmark}"),
        settings=SETTINGS.path("judge"),
        content=SETTINGS.content("judge"),
        ledger=PATHS.ledger,
        seed=GRID.seed,
    shell:
        "python -m eval grade --generations {params.answers:q} --policy {wildcards.policy:q} "
        "--benchmark {wildcards.benchmark:q}={params.benchmark:q} --settings {params.settings:q} --seed {params.seed} "
        "--ledger {params.ledger:q} --out {output:q} > {log:q} 2>&1"
