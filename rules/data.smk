# What comes before training: the mini world, downloads, base checkpoints, token ids.


rule world:
    output:
        directory(PATHS.world),
    log:
        f"{LOGS}/world.log",
    conda:
        ENVIRONMENT
    params:
        settings=SETTINGS.path("world"),
        content=SETTINGS.content("world"),
        seed=GRID.seed,
    shell:
        "python -m salsa world --settings {params.settings:q} --seed {params.seed} --out {output:q} > {log:q} 2>&1"


rule download:
    output:
        f"{PATHS.data}/downloads/{{file}}",
    log:
        f"{LOGS}/download/{{file}}.log",
    conda:
        ENVIRONMENT
    params:
        file=OPTIONS.download,
    shell:
        "python -m eval download {params.file:q} --out {output:q} > {log:q} 2>&1"


rule fetch:
    output:
        f"{GRID.paths.data}/hub/{{name}}/{{revision}}/{{split}}.jsonl",
    log:
        f"{LOGS}/fetch/{{name}}_{{revision}}_{{split}}.log",
    conda:
        ENVIRONMENT
    params:
        data_set=OPTIONS.hub_data_set,
    shell:
        "python -m salsa fetch {params.data_set:q} --out {output:q} > {log:q} 2>&1"


rule base:
    input:
        INPUTS.base,
    output:
        directory(f"{CHECKPOINTS}/base/{{model}}"),
    log:
        f"{LOGS}/base/{{model}}.log",
    conda:
        ENVIRONMENT
    params:
        settings=SETTINGS.path("{model}/base"),
        content=SETTINGS.content("{model}/base"),
        world=OPTIONS.world,
        seed=GRID.seed,
    shell:
        "python -m salsa base --model {wildcards.model:q} --settings {params.settings:q} {params.world:q} "
        "--seed {params.seed} --out {output:q} > {log:q} 2>&1"


# Tokenizes all that a model trains on, into a cache that the training jobs read. Their rules do not depend on the card
# of counts, or a change of one stage's data would rerun all of them; this job has priority instead.
rule data:
    input:
        base=f"{CHECKPOINTS}/base/{{model}}",
        data=INPUTS.all_data,
    output:
        f"{RESULTS}/data/{{model}}.json",
    log:
        f"{LOGS}/data/{{model}}.log",
    priority: 1
    conda:
        ENVIRONMENT
    params:
        sets=SETTINGS.path("{model}/data"),
        content=SETTINGS.content("{model}/data"),
        prepared=PATHS.prepared,
    shell:
        "python -m salsa data --base {input.base:q} --sets {params.sets:q} --prepared {params.prepared:q} "
        "--out {output:q} > {log:q} 2>&1"


rule overlap:
    input:
        data=INPUTS.training_data(),
        questions=INPUTS.questions(),
    output:
        f"{RESULTS}/overlap.json",
    log:
        f"{LOGS}/overlap.log",
    conda:
        ENVIRONMENT
    params:
        sets=SETTINGS.path("training_sets"),
        sets_content=SETTINGS.content("training_sets"),
        benchmarks=SETTINGS.path("questions"),
        benchmarks_content=SETTINGS.content("questions"),
        seed=GRID.seed,
    shell:
        "python -m eval overlap --sets {params.sets:q} --benchmarks {params.benchmarks:q} --seed {params.seed} "
        "--out {output:q} > {log:q} 2>&1"
