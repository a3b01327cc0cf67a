from salsa.config.algorithms import RL

# Policies: a method's algorithm trains its initial model against its reference. PPO and SALSA differ in `reference`
# only. METHODS holds, for each stage, a pattern of the methods that it trains; without any it matches nothing.
METHODS = {
    stage: "|".join(name for name, method in GRID.methods.items() if method.algorithm in algorithms) or "(?!)"
    for stage, algorithms in {"align": [*RL], "dpo": ["dpo"]}.items()
}


rule align:
    input:
        init=INPUTS.init,
        reference=INPUTS.reference,
        sft=INPUTS.first_sft,
        reward=INPUTS.reward_model,
        data=INPUTS.rl_data,
    output:
        policy=directory(f"{CHECKPOINTS}/policy/{{model}}/{{method}}{{replicate}}-s{{seed}}"),
        metrics=METRICS,
    log:
        f"{LOGS}/align/{{model}}/{{method}}{{replicate}}-s{{seed}}.log",
    wildcard_constraints:
        method=METHODS["align"],
    conda:
        ENVIRONMENT
    # Resources and not params, because a profile sets them (set-resources) and a change reruns nothing.
    resources:
        launcher="python",
        checkpoint_minutes=30,
        report_to="none",
    params:
        algorithm=OPTIONS.algorithm,
        strategy=OPTIONS.strategy,
        settings=SETTINGS.path("{model}/methods/{method}"),
        content=SETTINGS.content("{model}/methods/{method}"),
        seed=GRID.seed,
        run=OPTIONS.run,
        prepared=PATHS.prepared,
        gold=GOLD,
    shell:
        "{resources.launcher} -m salsa align --algorithm {params.algorithm} --init {input.init:q} --reference {input.reference:q} {params.strategy:q} "
        "--sft {input.sft:q} --reward {input.reward:q} {params.gold} --settings {params.settings:q} "
        "--seed {params.seed} --rl-seed {wildcards.seed} --run {params.run:q} --prepared {params.prepared:q} "
        "--checkpoint-minutes {resources.checkpoint_minutes} --report-to {resources.report_to:q} "
        "--out {output.policy:q} --metrics {output.metrics:q} > {log:q} 2>&1"


rule dpo:
    input:
        init=INPUTS.init,
        reference=INPUTS.reference,
        data=INPUTS.rl_data,
    output:
        policy=directory(f"{CHECKPOINTS}/policy/{{model}}/{{method}}{{replicate}}-s{{seed}}"),
        metrics=METRICS,
    log:
        f"{LOGS}/align/{{model}}/{{method}}{{replicate}}-s{{seed}}.log",
    wildcard_constraints:
        method=METHODS["dpo"],
    conda:
        ENVIRONMENT
    resources:
        launcher="python",
    params:
        strategy=OPTIONS.strategy,
        settings=SETTINGS.path("{model}/methods/{method}"),
        content=SETTINGS.content("{model}/methods/{method}"),
        seed=GRID.seed,
        run=OPTIONS.run,
        prepared=PATHS.prepared,
    shell:
        "{resources.launcher} -m salsa dpo --init {input.init:q} --reference {input.reference:q} {params.strategy:q} "
        "--settings {params.settings:q} --seed {params.seed} --rl-seed {wildcards.seed} --run {params.run:q} --prepared {params.prepared:q} "
        "--out {output.policy:q} --metrics {output.metrics:q} > {log:q} 2>&1"
