# Reward models: one per base model, shared by all methods.


rule reward:
    input:
        sft=FIRST_SFT,
        data=INPUTS.reward_data,
    output:
        model=directory(REWARD_MODEL),
        card=f"{RESULTS}/reward/{{model}}.json",
    log:
        f"{LOGS}/reward/{{model}}.log",
    conda:
        ENVIRONMENT
    resources:
        launcher="python",
    params:
        settings=SETTINGS.path("{model}/reward"),
        content=SETTINGS.content("{model}/reward"),
        seed=GRID.seed,
        prepared=PATHS.prepared,
    shell:
        "{resources.launcher} -m salsa reward --sft {input.sft:q} --settings {params.settings:q} --seed {params.seed} "
        "--prepared {params.prepared:q} --out {output.model:q} --card {output.card:q} > {log:q} 2>&1"
