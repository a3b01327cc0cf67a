import re

from salsa.config.algorithms import RL_ALGORITHMS

# Policies: a method's algorithm trains its initial model against its reference. PPO and SALSA differ in `reference`
# only. METHODS holds, for each rule, a pattern of the methods whose policies it makes; without any it matches nothing.
METHODS = {
    made_by: "|".join(re.escape(name) for name, method in GRID.methods.items() if made(method)) or "(?!)"
    for made_by, made in {
        "align": lambda method: method.algorithm in RL_ALGORITHMS and method.warp is None,
        "warp": lambda method: method.warp is not None,
        "dpo": lambda method: method.algorithm == "dpo",
    }.items()
}


rule align:
    input:
        init=INPUTS.init,
        reference=INPUTS.reference,
        sft=INPUTS.first_sft,
        reward=INPUTS.method_reward,
        scoring=INPUTS.scoring_models,
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
        launcher=LAUNCHER,
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
        launcher=LAUNCHER,
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


# WARP: rounds of runs, each a policy that the rule align trains. Their average is where the next round starts.
rule warp_start:
    input:
        runs=INPUTS.warp_runs,
        start=INPUTS.warp_start,
    output:
        directory(f"{CHECKPOINTS}/warp/{{model}}/{{method}}{{replicate}}-s{{seed}}/start-{{round}}"),
    log:
        f"{LOGS}/warp/{{model}}/{{method}}{{replicate}}-s{{seed}}-start-{{round}}.log",
    wildcard_constraints:
        method=METHODS["warp"],
    conda:
        ENVIRONMENT
    params:
        ingredients=OPTIONS.warp_ingredients,
        settings=SETTINGS.path("soup"),
        content=SETTINGS.content("soup"),
    shell:
        "python -m salsa soup {params.ingredients:q} --slerp-from {input.start:q} --settings {params.settings:q} "
        "--processes {threads} --out {output:q} > {log:q} 2>&1"


rule warp:
    input:
        runs=INPUTS.warp_runs,
        start=INPUTS.warp_start,
        metrics=INPUTS.warp_metrics,
    output:
        policy=directory(f"{CHECKPOINTS}/policy/{{model}}/{{method}}{{replicate}}-s{{seed}}"),
        metrics=METRICS,
    log:
        f"{LOGS}/warp/{{model}}/{{method}}{{replicate}}-s{{seed}}.log",
    wildcard_constraints:
        method=METHODS["warp"],
    conda:
        ENVIRONMENT
    params:
        ingredients=OPTIONS.warp_ingredients,
        runs=lambda wildcards: GRID.methods[wildcards.method].warp.runs,
        settings=SETTINGS.path("soup"),
        content=SETTINGS.content("soup"),
    shell:
        "python -m salsa warp {params.ingredients:q} --slerp-from {input.start:q} --settings {params.settings:q} "
        "--runs {params.runs} --metrics-of {input.metrics:q} --processes {threads} --out {output.policy:q} "
        "--metrics {output.metrics:q} > {log:q} 2>&1"
