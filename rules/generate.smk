# Answers of each policy to all benchmarks, and what can be said of them without a judge.


rule generate:
    input:
        policies=generate_policies,
        data=sorted({path for benchmark in GRID.benchmarks.values() for path in asked_from(benchmark)}),
    output:
        expand(
            f"{RESULTS}/generations/{{{{model}}}}/{{policy}}/{{benchmark}}.jsonl",
            policy=POLICIES if GRID.generate_together else ["{policy}"],
            benchmark=GRID.benchmarks,
        ),
    log:
        f"{LOGS}/generate/{{model}}/{GENERATING}.log",
    conda:
        ENVIRONMENT
    resources:
        launcher="python",
    params:
        benchmarks=generate_benchmarks(),
        policies=generate_options,
        settings=generate_settings,
        seed=GRID.seed,
        out=f"{RESULTS}/generations/{{model}}",
    shell:
        "{resources.launcher} -m eval generate {params.policies:q} {params.benchmarks:q} "
        "--settings {params.settings:q} --seed {params.seed} --out {params.out:q} > {log:q} 2>&1"


rule score:
    input:
        policy=score_policy,
        sft=f"{CHECKPOINTS}/sft/{{model}}/{GRID.sft.seeds[0]}",
        reference=score_reference,
        reward=f"{CHECKPOINTS}/reward/{{model}}",
        generations=expand(
            f"{RESULTS}/generations/{{{{model}}}}/{{{{policy}}}}/{{benchmark}}.jsonl",
            benchmark=GRID.benchmarks,
        ),
    output:
        expand(
            f"{RESULTS}/scores/{{{{model}}}}/{{{{policy}}}}/{{benchmark}}.jsonl",
            benchmark=GRID.benchmarks,
        ),
    log:
        f"{LOGS}/score/{{model}}/{{policy}}.log",
    conda:
        ENVIRONMENT
    resources:
        launcher="python",
    params:
        benchmarks=[f"--benchmark={name}" for name in sorted(GRID.benchmarks)],
        reference=score_reference_option,
        settings=score_settings,
        gold=GOLD,
        generations=score_generations,
        out=output_folder,
    shell:
        "{resources.launcher} -m eval score --policy {input.policy:q} --sft {input.sft:q} {params.reference:q} "
        "--reward {input.reward:q} --generations {params.generations:q} {params.benchmarks:q} {params.gold} "
        "--settings {params.settings:q} --out {params.out:q} > {log:q} 2>&1"
