# Reward models: one per base model, or one for a replicate; and one that no policy is trained against.


rule reward:
    input:
        sft=INPUTS.reward_start,
        data=INPUTS.reward_data,
    output:
        model=directory(f"{CHECKPOINTS}/reward/{{model}}{{replicate}}"),
        card=f"{RESULTS}/reward/{{model}}{{replicate}}.json",
    log:
        f"{LOGS}/reward/{{model}}{{replicate}}.log",
    wildcard_constraints:
        replicate="|".join(PATHS.reward_suffixes) or "()",
    conda:
        ENVIRONMENT
    resources:
        launcher="python",
    params:
        settings=SETTINGS.path("{model}/reward"),
        content=SETTINGS.content("{model}/reward"),
        seed=GRID.seed,
        reward_seed=OPTIONS.reward_seed,
        prepared=PATHS.prepared,
    shell:
        "{resources.launcher} -m salsa reward --sft {input.sft:q} --settings {params.settings:q} --seed {params.seed} "
        "{params.reward_seed:q} --run {wildcards.model:q}{wildcards.replicate} "
        "--prepared {params.prepared:q} --out {output.model:q} --card {output.card:q} > {log:q} 2>&1"
