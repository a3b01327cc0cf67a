# Policies: a method's algorithm from its start against its reference. PPO and SALSA differ in `reference` alone.


rule align:
    input:
        init=align_init,
        reference=align_reference,
        sft=f"{CHECKPOINTS}/sft/{{model}}/{GRID.sft.seeds[0]}",
        reward=f"{CHECKPOINTS}/reward/{{model}}",
        data=ppo_data,
    output:
        policy=directory(f"{CHECKPOINTS}/policy/{{model}}/{{method}}-s{{seed}}"),
        metrics=f"{RESULTS}/training/{{model}}/{{method}}-s{{seed}}.jsonl",
    log:
        f"{LOGS}/align/{{model}}/{{method}}-s{{seed}}.log",
    wildcard_constraints:
        method=trained_with("ppo"),
    conda:
        ENVIRONMENT
    # How to run it is for a profile to say (set-resources): a change of these makes no policy anew.
    resources:
        launcher="python",
        checkpoint_minutes=30,
        report_to="none",
    params:
        strategy=align_strategy,
        settings=align_settings,
        seed=GRID.seed,
        prepared=PREPARED,
        gold=GOLD,
    shell:
        "{resources.launcher} -m salsa align --init {input.init:q} --reference {input.reference:q} --strategy {params.strategy:q} "
        "--sft {input.sft:q} --reward {input.reward:q} --settings {params.settings:q} --seed {params.seed} --prepared {params.prepared:q} "
        "--rl-seed {wildcards.seed} {params.gold} --checkpoint-minutes {resources.checkpoint_minutes} "
        "--report-to {resources.report_to:q} --out {output.policy:q} --metrics {output.metrics:q} > {log:q} 2>&1"


rule dpo:
    input:
        init=align_init,
        reference=align_reference,
        data=dpo_data,
    output:
        policy=directory(f"{CHECKPOINTS}/policy/{{model}}/{{method}}-s{{seed}}"),
        metrics=f"{RESULTS}/training/{{model}}/{{method}}-s{{seed}}.jsonl",
    log:
        f"{LOGS}/align/{{model}}/{{method}}-s{{seed}}.log",
    wildcard_constraints:
        method=trained_with("dpo"),
    conda:
        ENVIRONMENT
    resources:
        launcher="python",
    params:
        strategy=align_strategy,
        settings=align_settings,
        seed=GRID.seed,
        prepared=PREPARED,
    shell:
        "{resources.launcher} -m salsa dpo --init {input.init:q} --reference {input.reference:q} --strategy {params.strategy:q} "
        "--settings {params.settings:q} --seed {params.seed} --prepared {params.prepared:q} --rl-seed {wildcards.seed} "
        "--out {output.policy:q} --metrics {output.metrics:q} > {log:q} 2>&1"
