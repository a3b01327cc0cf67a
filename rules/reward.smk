# Reward models: one per base model, or one for a replicate; and one that no policy is trained against. Methods may
# combine several, which read the pairs in different orders.


rule reward:
    input:
        sft=INPUTS.reward_start,
        data=INPUTS.reward_data,
    output:
        model=directory(f"{CHECKPOINTS}/reward/{{model}}{{replicate}}{{order}}"),
        card=f"{RESULTS}/reward/{{model}}{{replicate}}{{order}}.json",
    log:
        f"{LOGS}/reward/{{model}}{{replicate}}{{order}}.log",
    wildcard_constraints:
        replicate="|".join(PATHS.reward_suffixes) or "()",
    conda:
        ENVIRONMENT
    resources:
        launcher=LAUNCHER,
    params:
        settings=SETTINGS.path("{model}/reward"),
        content=SETTINGS.content("{model}/reward"),
        seed=GRID.seed,
        reward_seed=OPTIONS.reward_seed,
        order=OPTIONS.order,
        prepared=PATHS.prepared,
    shell:
        "{resources.launcher} -m salsa reward --sft {input.sft:q} --settings {params.settings:q} --seed {params.seed} "
        "{params.reward_seed:q} {params.order:q} --run {wildcards.model:q}{wildcards.replicate} "
        "--prepared {params.prepared:q} --out {output.model:q} --card {output.card:q} > {log:q} 2>&1"


rule combine:
    input:
        models=INPUTS.combined,
        sft=INPUTS.reward_start,
        data=INPUTS.combined_data,
    output:
        reward=directory(f"{CHECKPOINTS}/reward/{{model}}{{replicate}}.{{combined}}"),
        card=f"{RESULTS}/reward/{{model}}{{replicate}}.{{combined}}.json",
    log:
        f"{LOGS}/reward/{{model}}{{replicate}}.{{combined}}.log",
    wildcard_constraints:
        replicate="|".join(PATHS.reward_suffixes) or "()",
    conda:
        ENVIRONMENT
    resources:
        launcher=LAUNCHER,
    params:
        by=lambda wildcards: wildcards.combined.split("-")[0],
        settings=SETTINGS.path("{model}/reward"),
        content=SETTINGS.content("{model}/reward"),
        seed=GRID.seed,
        reward_seed=OPTIONS.reward_seed,
        prepared=PATHS.prepared,
    shell:
        "{resources.launcher} -m salsa combine --reward {input.models:q} --by {params.by} --sft {input.sft:q} "
        "--settings {params.settings:q} --seed {params.seed} {params.reward_seed:q} "
        "--run {wildcards.model:q}{wildcards.replicate} --prepared {params.prepared:q} "
        "--out {output.reward:q} --card {output.card:q} > {log:q} 2>&1"
