# What comes before any training: the mini world, downloads, base checkpoints.


rule world:
    output:
        directory(WORLD),
    log:
        f"{LOGS}/world.log",
    conda:
        ENVIRONMENT
    params:
        settings=settings(GRID.world, exclude=("published_judge",)) if GRID.world else "",
        seed=GRID.seed,
    shell:
        "python -m salsa world --settings {params.settings:q} --seed {params.seed} --out {output:q} > {log:q} 2>&1"


rule download:
    output:
        f"{DATA}/downloads/{{file}}",
    log:
        f"{LOGS}/download/{{file}}.log",
    conda:
        ENVIRONMENT
    params:
        url=download_url,
        sha256=download_sha256,
    shell:
        "python -m eval download --url {params.url:q} --sha256 {params.sha256:q} --out {output:q} > {log:q} 2>&1"


rule fetch:
    output:
        f"{GRID.paths.data}/hub/{{name}}/{{revision}}/{{split}}.jsonl",
    log:
        f"{LOGS}/fetch/{{name}}_{{revision}}_{{split}}.log",
    conda:
        ENVIRONMENT
    params:
        source=fetch_source,
    shell:
        "python -m salsa fetch --source {params.source:q} --out {output:q} > {log:q} 2>&1"


rule base:
    input:
        base_input,
    output:
        directory(f"{CHECKPOINTS}/base/{{model}}"),
    log:
        f"{LOGS}/base/{{model}}.log",
    conda:
        ENVIRONMENT
    params:
        settings=base_settings,
        world=base_world,
        seed=GRID.seed,
    shell:
        "python -m salsa base --model {wildcards.model:q} --settings {params.settings:q} {params.world:q} "
        "--seed {params.seed} --out {output:q} > {log:q} 2>&1"


# Token ids of all that a model trains on, in a cache that the training jobs read. These do not depend on the file that
# counts them, or a change of one stage's data would train all others again; it is first in line instead.
rule data:
    input:
        base=f"{CHECKPOINTS}/base/{{model}}",
        data=data_input,
    output:
        f"{RESULTS}/data/{{model}}.json",
    log:
        f"{LOGS}/data/{{model}}.log",
    priority: 1
    conda:
        ENVIRONMENT
    params:
        sets=data_options,
        prepared=PREPARED,
    shell:
        "python -m salsa data --base {input.base:q} {params.sets:q} --prepared {params.prepared:q} "
        "--out {output:q} > {log:q} 2>&1"


rule overlap:
    input:
        data=set_files(TRAINING_SETS),
        questions=sorted({path for benchmark in GRID.benchmarks.values() for path in asked_from(benchmark)}),
    output:
        f"{RESULTS}/overlap.json",
    log:
        f"{LOGS}/overlap.log",
    conda:
        ENVIRONMENT
    params:
        sets=set_options(TRAINING_SETS),
        benchmarks=generate_benchmarks(),
        seed=GRID.seed,
    shell:
        "python -m eval overlap {params.sets:q} {params.benchmarks:q} --seed {params.seed} --out {output:q} > {log:q} 2>&1"
