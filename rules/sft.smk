# SFT models: one base model, several seeds.


rule sft:
    input:
        base=f"{CHECKPOINTS}/base/{{model}}",
        data=sft_data,
    output:
        directory(f"{CHECKPOINTS}/sft/{{model}}/{{seed}}"),
    log:
        f"{LOGS}/sft/{{model}}/{{seed}}.log",
    conda:
        ENVIRONMENT
    resources:
        launcher="python",
    params:
        settings=sft_settings,
        seed=GRID.seed,
        prepared=PREPARED,
    shell:
        "{resources.launcher} -m salsa sft --base {input.base:q} --settings {params.settings:q} --seed {params.seed} "
        "--sft-seed {wildcards.seed} --prepared {params.prepared:q} --out {output:q} > {log:q} 2>&1"
