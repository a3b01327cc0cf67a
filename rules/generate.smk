# Answers of each policy to all benchmarks, and what can be said of them without a judge.


rule generate:
    input:
        policy=generate_policy,
        data=sorted({path for benchmark in GRID.benchmarks.values() for path in asked_from(benchmark)}),
    output:
        expand(
            f"{RESULTS}/generations/{{{{model}}}}/{{{{policy}}}}/{{benchmark}}.jsonl",
            benchmark=GRID.benchmarks,
        ),
    log:
        f"{LOGS}/generate/{{model}}/{{policy}}.log",
    conda:
        ENVIRONMENT
    params:
        benchmarks=generate_benchmarks(),
        settings=generate_settings,
        seed=GRID.seed,
        out=output_folder,
    shell:
        "python -m eval generate --policy {input.policy:q} --name {wildcards.policy:q} {params.benchmarks:q} "
        "--settings {params.settings:q} --seed {params.seed} --out {params.out:q} > {log:q} 2>&1"


rule score:
    input:
        policy=generate_policy,
        sft=f"{CHECKPOINTS}/sft/{{model}}/{GRID.sft.seeds[0]}",
        reference=score_reference,
        reward=f"{CHECKPOINTS}/reward/{{model}}",
        generations=rules.generate.output,
    output:
        expand(
            f"{RESULTS}/scores/{{{{model}}}}/{{{{policy}}}}/{{benchmark}}.jsonl",
            benchmark=GRID.benchmarks,
        ),
    log:
        f"{LOGS}/score/{{model}}/{{policy}}.log",
    conda:
        ENVIRONMENT
    params:
        benchmarks=[f"--benchmark={name}" for name in sorted(GRID.benchmarks)],
        reference=score_reference_option,
        settings=score_settings,
        gold=GOLD,
        generations=score_generations,
        out=output_folder,
    shell:
        "python -m eval score --policy {input.policy:q} --sft {input.sft:q} {params.reference:q} "
        "--reward {input.reward:q} --generations {params.generations:q} {params.benchmarks:q} {params.gold} "
        "--settings {params.settings:q} --out {params.out:q} > {log:q} 2>&1"
