# Calibration: the judge judges archived prompts again, and its verdicts are compared with the archived ones.

if GRID.world is not None and GRID.world.published_judge is not None:

    rule published:
        input:
            PATHS.world,
        output:
            f"{PATHS.data}/published_pair.jsonl",
        log:
            f"{LOGS}/published.log",
        conda:
            ENVIRONMENT
        params:
            questions=f"{PATHS.world}/benchmarks/mt_bench.jsonl",
            settings=SETTINGS.path("published_judge"),
            content=SETTINGS.content("published_judge"),
            seed=GRID.seed,
        shell:
            "python -m eval published --questions {params.questions:q} --settings {params.settings:q} "
            "--seed {params.seed} --out {output:q} > {log:q} 2>&1"


if GRID.calibration is not None:

    # The output is the import's summary. The archive is a ledger, and as such not an output.
    rule archive:
        input:
            INPUTS.archived_file,
        output:
            f"{RESULTS}/archive/{{archived}}.txt",
        log:
            f"{LOGS}/archive/{{archived}}.log",
        conda:
            ENVIRONMENT
        params:
            file=OPTIONS.archived_file,
            archive=GRID.calibration.archive,
        shell:
            "python -m eval import {params.file:q} --ledger {params.archive:q} > {output:q} 2> {log:q}"

    rule calibrate:
        input:
            INPUTS.archive(),
        output:
            PATHS.calibration,
        log:
            f"{LOGS}/calibrate.log",
        conda:
            ENVIRONMENT
        resources:
            judge=1,
        params:
            archive=GRID.calibration.archive,
            sample=OPTIONS.calibration_sample(),
            settings=SETTINGS.path("judge"),
            content=SETTINGS.content("judge"),
            ledger=PATHS.ledger,
            confidence=GRID.tables.confidence,
            resamples=GRID.calibration.resamples,
            seed=GRID.seed,
        shell:
            "python -m eval calibrate --archive {params.archive:q} {params.sample:q} --settings {params.settings:q} "
            "--confidence {params.confidence} --resamples {params.resamples} --seed {params.seed} "
            "--ledger {params.ledger:q} --out {output:q} > {log:q} 2>&1"
