# Judgments: one job a cell (model, benchmark, comparison), and grades of single answers.
# Calls are kept in the ledger, which all these jobs share. It is no output: Snakemake deletes outputs, and calls are
# paid for. Each job has judge.concurrency calls in flight; --resources judge=N lets N jobs ask at a time.


rule judge:
    input:
        generations=judge_input,
        data=benchmark_files,
    output:
        f"{RESULTS}/judgments/{{model}}/{{benchmark}}/{{comparison}}.jsonl",
    log:
        f"{LOGS}/judge/{{model}}/{{benchmark}}/{{comparison}}.log",
    conda:
        ENVIRONMENT
    resources:
        judge=1,
    params:
        generations=judge_generations,
        pairs=judge_options,
        benchmark=benchmark_option,
        settings=settings(GRID.judge),
        ledger=LEDGER,
        seed=GRID.seed,
    shell:
        "python -m eval judge --generations {params.generations:q} {params.pairs:q} --benchmark {params.benchmark:q} "
        "--settings {params.settings:q} --seed {params.seed} --ledger {params.ledger:q} --out {output:q} > {log:q} 2>&1"


if GRID.world is not None and GRID.world.published_judge is not None:

    rule published:
        input:
            WORLD,
        output:
            f"{DATA}/published_pair.jsonl",
        log:
            f"{LOGS}/published.log",
        conda:
            ENVIRONMENT
        params:
            questions=f"{WORLD}/benchmarks/mt_bench.jsonl",
            settings=settings(GRID.world.published_judge),
            seed=GRID.seed,
        shell:
            "python -m eval published --questions {params.questions:q} --settings {params.settings:q} "
            "--seed {params.seed} --out {output:q} > {log:q} 2>&1"


if GRID.calibration is not None:

    # The output is the import's summary: the archive is a ledger, and no output either.
    rule archive:
        input:
            archive_inputs,
        output:
            f"{RESULTS}/archive/{{archived}}.txt",
        log:
            f"{LOGS}/archive/{{archived}}.log",
        conda:
            ENVIRONMENT
        params:
            options=archive_options,
            archive=GRID.calibration.archive,
        shell:
            "python -m eval import {params.options:q} --ledger {params.archive:q} > {output:q} 2> {log:q}"

    rule calibrate:
        input:
            calibration_files(),
        output:
            f"{RESULTS}/calibration.json",
        log:
            f"{LOGS}/calibrate.log",
        conda:
            ENVIRONMENT
        resources:
            judge=1,
        params:
            archive=GRID.calibration.archive,
            options=calibration_options(),
            settings=settings(GRID.judge),
            ledger=LEDGER,
            confidence=GRID.tables.confidence,
            resamples=GRID.tables.resamples,
            seed=GRID.seed,
        shell:
            "python -m eval calibrate --archive {params.archive:q} {params.options:q} --settings {params.settings:q} "
            "--confidence {params.confidence} --resamples {params.resamples} --seed {params.seed} "
            "--ledger {params.ledger:q} --out {output:q} > {log:q} 2>&1"


rule grade:
    input:
        generations=f"{RESULTS}/generations/{{model}}/{{policy}}/{{benchmark}}.jsonl",
        data=benchmark_files,
    output:
        f"{RESULTS}/grades/{{model}}/{{policy}}/{{benchmark}}.jsonl",
    log:
        f"{LOGS}/grade/{{model}}/{{policy}}/{{benchmark}}.log",
    conda:
        ENVIRONMENT
    resources:
        judge=1,
    params:
        generations=judge_generations,
        benchmark=benchmark_option,
        settings=settings(GRID.judge),
        ledger=LEDGER,
        seed=GRID.seed,
    shell:
        "python -m eval grade --generations {params.generations:q} --policy {wildcards.policy:q} "
        "--benchmark {params.benchmark:q} --settings {params.settings:q} --seed {params.seed} "
        "--ledger {params.ledger:q} --out {output:q} > {log:q} 2>&1"
