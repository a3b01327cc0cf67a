# Each policy's answers to all benchmarks, and their scores. With `generate_together` one job answers for all policies of
# a model and replicate, so that the engine starts once.
ANSWERED = {"policy": PATHS.answered_together} if GRID.generate_together else {}


rule generate:
    input:
        policies=INPUTS.answering_policies,
        questions=INPUTS.questions(),
    output:
        expand(ANSWERS, benchmark=GRID.benchmarks, allow_missing=True, **ANSWERED),
    log:
        f"{LOGS}/generate/{{model}}/{'all{replicate}' if GRID.generate_together else '{policy}'}.log",
    conda:
        ENVIRONMENT
    resources:
        launcher="python",
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
        policy=INPUTS.policy,
        sft=INPUTS.first_sft,
        reference=INPUTS.final_reference,
        reward=INPUTS.reward_model,
        held_out_reward=INPUTS.held_out_reward,
        answers=expand(ANSWERS, benchmark=GRID.benchmarks, allow_missing=True),
    output:
        expand(SCORES, benchmark=GRID.benchmarks, allow_missing=True),
    log:
        f"{LOGS}/score/{{model}}/{{policy}}.log",
    conda:
        ENVIRONMENT
    resources:
        launcher="python",
    params:
        reference=OPTIONS.final_reference,
        held_out_reward=OPTIONS.held_out_reward,
        answers=lambda wildcards, input: str(Path(input.answers[0]).parent),
        benchmarks=[f"--benchmark={name}" for name in sorted(GRID.benchmarks)],
        gold=GOLD,
        settings=SETTINGS.path("{model}/score"),
        content=SETTINGS.content("{model}/score"),
        out=lambda wildcards, output: str(Path(output[0]).parent),
    shell:
        "{resources.launcher} -m eval score --policy {input.policy:q} --sft {input.sft:q} {params.reference:q} "
        "--reward {input.reward:q} {params.held_out_reward:q} --generations {params.answers:q} {params.benchmarks:q} {params.gold} "
        "--settings {params.settings:q} --out {params.out:q} > {log:q} 2>&1"
