# Each policy's answers to all benchmarks, and their scores. With `policies_together` one job answers for all policies of
# a model and replicate, and one scores them, so that engines and libraries start once.
TOGETHER = {"policy": PATHS.together} if GRID.policies_together else {}
JOB = "all{replicate}" if GRID.policies_together else "{policy}"


rule generate:
    input:
        policies=INPUTS.answering_policies,
        questions=INPUTS.questions(),
    output:
        expand(ANSWERS, benchmark=GRID.benchmarks, allow_missing=True, **TOGETHER),
    log:
        f"{LOGS}/generate/{{model}}/{JOB}.log",
    conda:
        ENVIRONMENT
    resources:
        launcher=LAUNCHER,
    params:
        policies=OPTIONS.answering_policies,
        benchmarks=SETTINGS.path("questions"),
        benchmarks_content=SETTINGS.content("questions"),
        settings=SETTINGS.path("{model}/generate"),
        content=SETTINGS.content("{model}/generate"),
        seed=GRID.seed,
        run=OPTIONS.run,
        out=f"{RESULTS}/generations/{{model}}",
    shell:
        "{resources.launcher} -m eval generate {params.policies:q} --benchmarks {params.benchmarks:q} "
        "--settings {params.settings:q} --seed {params.seed} --run {params.run:q} "
        "--out {params.out:q} > {log:q} 2>&1"


rule score:
    input:
        policies=INPUTS.answering_policies,
        sft=INPUTS.first_sft,
        references=INPUTS.final_references,
        reward=INPUTS.reward_model,
        held_out_reward=INPUTS.held_out_reward,
        answers=expand(ANSWERS, benchmark=GRID.benchmarks, allow_missing=True, **TOGETHER),
    output:
        expand(SCORES, benchmark=GRID.benchmarks, allow_missing=True, **TOGETHER),
    log:
        f"{LOGS}/score/{{model}}/{JOB}.log",
    conda:
        ENVIRONMENT
    resources:
        launcher=LAUNCHER,
    params:
        policies=OPTIONS.answering_policies,
        references=OPTIONS.final_references,
        held_out_reward=OPTIONS.held_out_reward,
        answers=lambda wildcards, input: str(Path(input.answers[0]).parents[1]),
        benchmarks=[f"--benchmark={name}" for name in sorted(GRID.benchmarks)],
        gold=GOLD,
        settings=SETTINGS.path("{model}/score"),
        content=SETTINGS.content("{model}/score"),
        out=lambda wildcards, output: str(Path(output[0]).parents[1]),
    shell:
        "{resources.launcher} -m eval score {params.policies:q} --sft {input.sft:q} {params.references:q} "
        "--reward {input.reward:q} {params.held_out_reward:q} --generations {params.answers:q} {params.benchmarks:q} {params.gold} "
        "--settings {params.settings:q} --out {params.out:q} > {log:q} 2>&1"
