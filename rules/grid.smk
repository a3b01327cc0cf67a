# The checked config, and what the rules take from it.
#
# INPUTS and OPTIONS map a job's wildcards to input files and command-line options (eval/workflow). SETTINGS writes what
# a stage reads of the config to a file. The file is no input: its content is a param, so a job reruns if it changes.
import os
import sys
from pathlib import Path

from snakemake.settings.types import DeploymentMethod

from eval.grid.layout import generation_file, grade_file, judgment_file, score_file, training_file
from eval.workflow.start import load_grid
from salsa.config.methods import combined_rewards
from salsa.workflow.file_times import restore_times

# The rules' `python` is the one that Snakemake runs in, even if its environment is not activated.
os.environ.update(PATH=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))

PATHS, INPUTS, OPTIONS, SETTINGS = load_grid(config, workflow.configfiles, workflow.basedir)
GRID = PATHS.config

if DeploymentMethod.CONDA in workflow.deployment_settings.deployment_method:
    sys.exit("error: --sdm conda: make the environment once and activate it: conda env create -f environment.yml")

CHECKPOINTS = PATHS.checkpoints
RESULTS = PATHS.results
ANSWERS = str(generation_file(Path(RESULTS), "{model}", "{policy}", "{benchmark}"))
SCORES = str(score_file(Path(RESULTS), "{model}", "{policy}", "{benchmark}"))
GRADES = str(grade_file(Path(RESULTS), "{model}", "{policy}", "{benchmark}"))
JUDGMENTS = str(judgment_file(Path(RESULTS), "{model}", "{benchmark}", "{comparison}{replicate}", ""))
METRICS = str(training_file(Path(RESULTS), "{model}", "{method}{replicate}-s{seed}"))
LOGS = PATHS.logs
GOLD = "--gold" if GRID.world is not None else ""
# Stages of a generated world take less time than their imports. Resources name the launcher, so a profile can change it.
LAUNCHER = "python -m salsa.workflow.forked" if GRID.world is not None else "python"
# Every rule needs it. It names files beside it, which Snakemake's own copy of it would not find.
ENVIRONMENT = f"{workflow.basedir}/environment.yml"

if workflow.is_main_process:
    restore_times([Path(CHECKPOINTS), Path(RESULTS)])


envvars:
    "PATH",


wildcard_constraints:
    model="|".join(GRID.models),
    method="|".join(PATHS.trained),
    policy="|".join(PATHS.policies),
    benchmark="|".join(GRID.benchmarks),
    comparison="|".join(GRID.comparisons),
    # What a replicate adds to names: -REPLICATE, or nothing. Snakemake takes an empty pattern for none, hence "()".
    replicate="|".join(PATHS.suffixes) or "()",
    seed=r"\d+",
    soup=r"(base|sft-)[^/_]+",
    order=r"(\.\d+)?",
    combined="|".join(combined_rewards(GRID.methods)) or "none",
    tried=r"sft-\d+(\+sft-\d+)+",
    round=r"\d+",
    archived="|".join(GRID.calibration.files if GRID.calibration else ()) or "none",
    of=r"\d+",
    draw=r"\d+",
