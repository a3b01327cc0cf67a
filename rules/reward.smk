# One reward model a base model, shared by all methods.


rule reward:
    input:
        sft=f"{CHECKPOINTS}/sft/{{model}}/{GRID.sft.seeds[0]}",
        data=reward_data,
    output:
        model=directory(f"{CHECKPOINTS}/reward/{{model}}"),
        card=f"{RESULTS}/reward/{{model}}.json",
    log:
        f"{LOGS}/reward/{{model}}.log",
    conda:
        ENVIRONMENT
    resources:
        launcher="python",
    params:
        settings=reward_settings,
        seed=GRID.seed,
        prepared=PREPARED,
    shell:
        "{resources.launcher} -m salsa reward --sft {input.sft:q} --settings {params.settings:q} --seed {params.seed} "
        "--prepared {params.prepared:q} --out {output.model:q} --card {output.card:q} > {log:q} 2>&1"
