# Soups of SFT models. A soup's name holds its weights, so that you can request any soup by its path.


rule soup:
    input:
        INPUTS.ingredients,
    output:
        directory(f"{CHECKPOINTS}/soup/{{model}}/{{soup}}"),
    log:
        f"{LOGS}/soup/{{model}}/{{soup}}.log",
    conda:
        ENVIRONMENT
    params:
        ingredients=OPTIONS.ingredients,
        settings=SETTINGS.path("soup"),
        content=SETTINGS.content("soup"),
    shell:
        "python -m salsa soup {params.ingredients:q} --settings {params.settings:q} --processes {threads} --out {output:q} "
        "> {log:q} 2>&1"


rule perturb:
    input:
        of=f"{CHECKPOINTS}/sft/{{model}}/{{of}}",
        like=f"{CHECKPOINTS}/soup/{{model}}/{{soup}}",
    output:
        directory(f"{CHECKPOINTS}/perturbed/{{model}}/{{of}}_{{draw}}_{{soup}}"),
    log:
        f"{LOGS}/perturb/{{model}}/{{of}}_{{draw}}_{{soup}}.log",
    conda:
        ENVIRONMENT
    params:
        seed=GRID.seed,
    shell:
        "python -m salsa perturb --of {input.of:q} --like {input.like:q} --seed {params.seed} --draw {wildcards.draw} "
        "--run {wildcards.model:q}-sft-{wildcards.of} "
        "--out {output:q} > {log:q} 2>&1"


rule alpha:
    input:
        points=INPUTS.alpha_line,
        sft=INPUTS.first_sft,
        reward=INPUTS.reward_model,
        data=INPUTS.alpha_data,
    output:
        f"{RESULTS}/alpha/{{model}}{{replicate}}.jsonl",
    log:
        f"{LOGS}/alpha/{{model}}{{replicate}}.log",
    conda:
        ENVIRONMENT
    resources:
        launcher="python",
    params:
        points=OPTIONS.alpha_line,
        settings=SETTINGS.path("{model}/alpha"),
        content=SETTINGS.content("{model}/alpha"),
        test=SETTINGS.path("{model}/sft#test"),
        test_content=SETTINGS.content("{model}/sft#test"),
        prepared=PATHS.prepared,
        seed=GRID.seed,
        run=OPTIONS.run,
        gold=GOLD,
    shell:
        "{resources.launcher} -m eval alpha {params.points:q} --sft {input.sft:q} --reward {input.reward:q} "
        "{params.gold} --test {params.test:q} --settings {params.settings:q} --seed {params.seed} "
        "--run {params.run:q} --prepared {params.prepared:q} --out {output:q} > {log:q} 2>&1"
