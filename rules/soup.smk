# Soups of SFT models; their names hold their weights, so that any soup can be asked for by its path.


rule soup:
    input:
        soup_input,
    output:
        directory(f"{CHECKPOINTS}/soup/{{model}}/{{soup}}"),
    log:
        f"{LOGS}/soup/{{model}}/{{soup}}.log",
    conda:
        ENVIRONMENT
    params:
        ingredients=soup_ingredients,
        settings=settings(GRID.soup),
    shell:
        "python -m salsa soup {params.ingredients:q} --settings {params.settings:q} --out {output:q} > {log:q} 2>&1"


rule perturb:
    input:
        of=perturb_of,
        like=perturb_like,
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
        "--out {output:q} > {log:q} 2>&1"


rule alpha:
    input:
        points=alpha_input,
        sft=f"{CHECKPOINTS}/sft/{{model}}/{GRID.sft.seeds[0]}",
        reward=f"{CHECKPOINTS}/reward/{{model}}",
        data=alpha_data,
    output:
        f"{RESULTS}/alpha/{{model}}.jsonl",
    log:
        f"{LOGS}/alpha/{{model}}.log",
    conda:
        ENVIRONMENT
    resources:
        launcher="python",
    params:
        checkpoints=alpha_checkpoints,
        also=alpha_also,
        settings=alpha_settings,
        test=alpha_test,
        prepared=PREPARED,
        seed=GRID.seed,
        gold=GOLD,
    shell:
        "{resources.launcher} -m eval alpha {params.checkpoints:q} {params.also:q} --sft {input.sft:q} --reward {input.reward:q} {params.gold} "
        "--test {params.test:q} --settings {params.settings:q} --seed {params.seed} --prepared {params.prepared:q} --out {output:q} > {log:q} 2>&1"
