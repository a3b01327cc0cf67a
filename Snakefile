# The workflow, from base models to tables. docs/protocol.md says what each stage does and why.
from snakemake.utils import min_version

from eval.workflow.start import begin, lift_default_rate, start_fork_server

min_version("9.19")


# A config with a `grid:` line stands alone: merged into the default, it would keep the default's models.
if "grid" not in config:

    configfile: "config/mini.yaml"


include: "rules/grid.smk"
include: "rules/data.smk"
include: "rules/sft.smk"
include: "rules/soup.smk"
include: "rules/reward.smk"
include: "rules/align.smk"
include: "rules/frontier.smk"
include: "rules/generate.smk"
include: "rules/judge.smk"
include: "rules/calibrate.smk"
include: "rules/tables.smk"
include: "rules/report.smk"
include: "rules/prepare.smk"


onstart:
    begin(PATHS, SETTINGS, workflow.rules)
    if workflow.local_exec and GRID.world is not None:
        start_fork_server(PATHS)
    lift_default_rate(workflow.scheduler)


localrules:
    all,
    prepare,


# It has no output, so it always runs: it prints the claims, the headline table and the paths of all results.
rule all:
    default_target: True
    input:
        tables=rules.tables.output,
        figures=rules.figures.output,
        report=rules.report.output,
    log:
        f"{LOGS}/show.log",
    conda:
        ENVIRONMENT
    params:
        results=lambda wildcards: RESULTS,
        below_floor=GRID.tables.below_floor,
    shell:
        "python -m eval show --results {params.results:q} --below-floor {params.below_floor} | tee {log:q}"


include: "rules/targets.smk"
