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
