# Averages of SFT models, straight (soup) or on an arc (slerp). A name holds the weights, so that you can request any
# average by its path.


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


rule slerp:
    input:
        INPUTS.ingredients,
        base=f"{CHECKPOINTS}/base/{{model}}",
    output:
        directory(f"{CHECKPOINTS}/slerp/{{model}}/{{soup}}"),
    log:
        f"{LOGS}/slerp/{{model}}/{{soup}}.log",
    conda:
        ENVIRONMENT
    params:
        ingredients=OPTIONS.ingredients,
        settings=SETTINGS.path("soup"),
        content=SETTINGS.content("soup"),
    shell:
        "python -m salsa soup {params.ingredients:q} --slerp-from {input.base:q} --settings {params.settings:q} "
        "--processes {threads} --out {output:q} > {log:q} 2>&1"


rule greedy:
    input:
        models=INPUTS.tried,
        reward=f"{CHECKPOINTS}/reward/{{model}}-held-out",
        data=INPUTS.alpha_prompts,
    output:
        directory(f"{CHECKPOINTS}/greedy/{{model}}/{{tried}}"),
    log:
        f"{LOGS}/greedy/{{model}}/{{tried}}.log",
    conda:
        ENVIRONMENT
    resources:
        launcher=LAUNCHER,
    params:
        models=OPTIONS.tried,
        settings=SETTINGS.path("{model}/alpha"),
        content=SETTINGS.content("{model}/alpha"),
        soup=SETTINGS.path("soup"),
        soup_content=SETTINGS.content("soup"),
        prepared=PATHS.prepared,
        seed=GRID.seed,
    shell:
        "{resources.launcher} -m eval greedy {params.models:q} --reward {input.reward:q} --settings {params.settings:q} "
        "--soup {params.soup:q} --seed {params.seed} --run {wildcards.model:q} --prepared {params.prepared:q} "
        "--out {output:q} > {log:q} 2>&1"


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
        launcher=LAUNCHER,
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
