# Reward against KL at several betas: the runs of the section `frontier`, and the checkpoints that they kept.


rule frontier:
    input:
        policies=INPUTS.frontier,
        sft=INPUTS.first_sft,
        reward=INPUTS.reward_model,
        held_out_reward=INPUTS.held_out_reward,
        trained_on=INPUTS.frontier_rewards,
        data=INPUTS.alpha_prompts,
    output:
        f"{RESULTS}/frontier/{{model}}{{replicate}}.jsonl",
    log:
        f"{LOGS}/frontier/{{model}}{{replicate}}.log",
    conda:
        ENVIRONMENT
    resources:
        launcher=LAUNCHER,
    params:
        policies=OPTIONS.frontier,
        held_out_reward=OPTIONS.held_out_reward,
        trained_on=OPTIONS.trained_on,
        settings=SETTINGS.path("{model}/alpha"),
        content=SETTINGS.content("{model}/alpha"),
        prepared=PATHS.prepared,
        seed=GRID.seed,
        run=OPTIONS.run,
        gold=GOLD,
    shell:
        "{resources.launcher} -m eval frontier {params.policies:q} --sft {input.sft:q} --reward {input.reward:q} "
        "{params.held_out_reward:q} {params.trained_on:q} {params.gold} --settings {params.settings:q} --seed {params.seed} "
        "--run {params.run:q} --prepared {params.prepared:q} --out {output:q} > {log:q} 2>&1"
