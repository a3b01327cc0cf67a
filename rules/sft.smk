# SFT models: one base model, several seeds.


rule sft:
    input:
        base=f"{CHECKPOINTS}/base/{{model}}",
        data=[*given(GRID.sft.train), *given(GRID.sft.test)],
    output:
        directory(f"{CHECKPOINTS}/sft/{{model}}/{{seed}}"),
    log:
        f"{LOGS}/sft/{{model}}/{{seed}}.log",
    conda:
        ENVIRONMENT
    params:
        settings=settings(GRID.sft),
        seed=GRID.seed,
    shell:
        "python -m salsa sft --base {input.base:q} --settings {params.settings:q} --seed {params.seed} "
        "--sft-seed {wildcards.seed} --out {output:q} > {log:q} 2>&1"
