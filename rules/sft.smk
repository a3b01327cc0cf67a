# SFT models: one base model, several runs.


rule sft:
    input:
        base=f"{CHECKPOINTS}/base/{{model}}",
        data=INPUTS.sft_data,
    output:
        directory(f"{CHECKPOINTS}/sft/{{model}}/{{seed}}"),
    log:
        f"{LOGS}/sft/{{model}}/{{seed}}.log",
    conda:
        ENVIRONMENT
    resources:
        launcher=LAUNCHER,
    params:
        settings=SETTINGS.path("{model}/sft"),
        content=SETTINGS.content("{model}/sft"),
        seed=GRID.seed,
        prepared=PATHS.prepared,
    shell:
        "{resources.launcher} -m salsa sft --base {input.base:q} --settings {params.settings:q} --seed {params.seed} "
        "--sft-seed {wildcards.seed} --run {wildcards.model:q} --prepared {params.prepared:q} --out {output:q} > {log:q} 2>&1"
