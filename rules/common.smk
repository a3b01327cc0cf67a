# The checked config, the folders of the grid, and the functions that rules take their inputs and params from.
import json
import os
import sys
from pathlib import Path

from snakemake.settings.types import DeploymentMethod

from eval.report.assumptions import settings_of
from eval.benchmarks import find, pinned_files
from eval.tables.grid import alpha_line, calibration_file, grid_of, measured_files, pairs, policies
from eval.ledger.index import INDEX
from eval.ledger.calls import CALLS
from salsa.config import layout
from salsa.config.config import algorithm_settings, for_model, parse_config, with_local_copies
from salsa.workflow.file_times import restore_times
from salsa.data.training_sets import all_sets, training_sets
from salsa.runtime.errors import UserError
from salsa.workflow.grid_lock import hold
from salsa.config.naming import parse_soup_name
from salsa.config.references import strategy_json

# The rules' `python` is the one that Snakemake runs in, whether or not its environment is activated.
os.environ.update(PATH=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))

try:
    CONFIG = parse_config(config, " + ".join(map(str, workflow.configfiles)))
    GRID, HUB_FILES = with_local_copies(CONFIG)
    for each in GRID.benchmarks.values():
        find(each.kind)
        pinned_files(each, missing_is_fine=True)
except UserError as error:
    sys.exit(f"error: {error}")

if DeploymentMethod.CONDA in workflow.deployment_settings.deployment_method:
    sys.exit("error: --sdm conda: make the environment once and activate it: conda env create -f environment.yml")

DATA = f"{GRID.paths.data}/{GRID.grid}"
PREPARED = f"{GRID.paths.data}/prepared"
MODELS = {model: for_model(GRID, model) for model in GRID.models}  # the grid as each of them sees it
DATA_SETS = {model: all_sets(GRID, model) for model in GRID.models}
TRAINING_SETS = training_sets(GRID)
WORLD = layout.world_folder(GRID)
CHECKPOINTS = layout.root(GRID)
RESULTS = f"{GRID.paths.results}/{GRID.grid}"
LEDGER = GRID.paths.ledger or f"{RESULTS}/ledger"
LOGS = f"logs/{GRID.grid}"
GOLD = "--gold" if GRID.world is not None else ""
TRAINED = [name for name, method in GRID.methods.items() if method.algorithm != "none"]
POLICIES = [policy for method in GRID.methods for policy in policies(GRID.methods, GRID.rl_seeds, method)]
GENERATING = "all" if GRID.generate_together else "{policy}"  # the log of a job that answers benchmarks
MEASURED = [str(path) for path in measured_files(Path(RESULTS), grid_of(GRID)).values()]
# What every rule needs. It names files beside it, which Snakemake's own copy of it would not find.
ENVIRONMENT = f"{workflow.basedir}/environment.yml"
DOWNLOADS = {path: source for benchmark in GRID.benchmarks.values() for path, source in benchmark.download.items()}

if workflow.is_main_process:
    restore_times([Path(CHECKPOINTS), Path(RESULTS)])


envvars:
    "PATH",


wildcard_constraints:
    model="|".join(GRID.models),
    method="|".join(TRAINED),
    policy="|".join(POLICIES),
    benchmark="|".join(GRID.benchmarks),
    comparison="|".join(GRID.comparisons),
    seed=r"\d+",
    soup=r"sft-[^/_]+",
    archived="|".join(GRID.calibration.files if GRID.calibration else ()) or "none",
    of=r"\d+",
    draw=r"\d+",


def lock_grid():
    """Ends this run where another run of the grid is at work."""
    try:
        hold(Path(f".snakemake/{GRID.grid}.lock"), f"{GRID.paths.results}/{GRID.grid}")
    except UserError as error:
        sys.exit(f"error: {error}")


def say_if_interrupted(logs):
    """The last word after Ctrl-C, which Snakemake itself calls an error."""
    if any("Terminating processes on user request" in Path(log).read_text() for log in logs):
        print("Interrupted: the same command goes on from here.", file=sys.stderr)


def settings(section, exclude=(), **changes):
    """A section of the config as the JSON that a stage takes, less what does not concern it."""
    values = section.model_dump(mode="json", exclude_none=True, exclude=set(exclude))
    fields = [(name, field) for name, field in type(section).model_fields.items() if name not in exclude]
    # A null says something where the default is another value.
    nulls = {name: None for name, field in fields if getattr(section, name) is None and field.default is not None}
    return json.dumps({**values, **nulls, **changes})


def results_folder(wildcards):
    return RESULTS


def output_folder(wildcards, output):
    """Where a stage that writes several files puts them."""
    return str(Path(output[0]).parent)


def given(source):
    """What has to be there before a data source can be read: the world, or a file."""
    return [WORLD] if Path(source.path).is_relative_to(WORLD) else [source.path]


def asked_from(benchmark):
    """The files that a benchmark's questions come from: the questions, and the code where it is of the user's own."""
    return [*given(benchmark.questions), *([benchmark.kind] if benchmark.kind.endswith(".py") else [])]


def of_benchmark(benchmark):
    """All files that a benchmark is read from."""
    extra = [path for path in (benchmark.references, benchmark.judge_prompts) if path is not None]
    return [*asked_from(benchmark), *extra]


def checkpoint_folder(model, name):
    """The folder of an SFT model or a soup, as a method or the alpha line names it."""
    return layout.checkpoint_folder(GRID, model, name)


def method_of(policy):
    """The method that a policy comes from."""
    return next(name for name in GRID.methods if policy in policies(GRID.methods, GRID.rl_seeds, name))


def policy_folder(model, policy):
    """The checkpoint that answers for a policy: its own, or its method's start where nothing is trained."""
    method = GRID.methods[method_of(policy)]
    if method.algorithm == "none":
        return checkpoint_folder(model, method.init)
    return f"{CHECKPOINTS}/policy/{model}/{policy}"


# data.smk


def download_url(wildcards, output):
    return DOWNLOADS[str(output)].url


def download_sha256(wildcards, output):
    return DOWNLOADS[str(output)].sha256


def fetch_source(wildcards, output):
    return HUB_FILES[str(output)].model_dump_json(exclude_none=True)


def set_options(sets):
    return [f"--set={name}={found.model_dump_json(exclude_none=True)}" for name, found in sets.items()]


def set_files(sets):
    return sorted({path for found in sets.values() for path in given(found.source)})


def data_input(wildcards):
    return set_files(DATA_SETS[wildcards.model])


def data_options(wildcards):
    return set_options(DATA_SETS[wildcards.model])


def files_of(*sources):
    return [path for source in sources for path in given(source)]


def sft_data(wildcards):
    sft = MODELS[wildcards.model].sft
    return files_of(sft.train, sft.test)


def sft_settings(wildcards):
    return settings(MODELS[wildcards.model].sft)


def reward_data(wildcards):
    reward = MODELS[wildcards.model].reward
    return files_of(reward.train, reward.test, reward.normalisation_prompts)


def reward_settings(wildcards):
    return settings(MODELS[wildcards.model].reward)


def base_input(wildcards):
    model = GRID.models[wildcards.model]
    return [WORLD] if model.world else [model.local.path] if model.local else []


def base_settings(wildcards):
    model = GRID.models[wildcards.model].model_dump(mode="json", exclude_none=True, exclude={"settings"})
    base = GRID.base.model_dump(mode="json", exclude_none=True) if "world" in model else None
    return json.dumps({"model": model, "base": base})


def base_world(wildcards):
    return ["--world", WORLD] if GRID.models[wildcards.model].world else []


# soup.smk


def soup_input(wildcards):
    return [checkpoint_folder(wildcards.model, name) for name in parse_soup_name(wildcards.soup)]


def soup_ingredients(wildcards):
    weights = parse_soup_name(wildcards.soup)
    return [f"--ingredient={checkpoint_folder(wildcards.model, name)}={weight!r}" for name, weight in weights.items()]


def perturb_of(wildcards):
    return f"{CHECKPOINTS}/sft/{wildcards.model}/{wildcards.of}"


def perturb_like(wildcards):
    return f"{CHECKPOINTS}/soup/{wildcards.model}/{wildcards.soup}"


def alpha_input(wildcards):
    return [checkpoint_folder(wildcards.model, name) for name in [*alpha_line(GRID.alpha).values(), *GRID.alpha.also]]


def alpha_checkpoints(wildcards):
    points = alpha_line(GRID.alpha)
    return [f"--checkpoint={alpha:g}={checkpoint_folder(wildcards.model, name)}" for alpha, name in points.items()]


def alpha_data(wildcards):
    own = MODELS[wildcards.model]
    return files_of(own.alpha.prompts, own.sft.test)


def alpha_settings(wildcards):
    return settings(MODELS[wildcards.model].alpha)


def alpha_test(wildcards):
    return settings(MODELS[wildcards.model].sft.test)


def alpha_also(wildcards):
    return [f"--also={checkpoint_folder(wildcards.model, name)}" for name in GRID.alpha.also]


# align.smk


def trained_with(algorithm):
    """A pattern of the methods that an algorithm trains; where there are none, one that nothing matches."""
    return "|".join(name for name, method in GRID.methods.items() if method.algorithm == algorithm) or "(?!)"


def align_init(wildcards):
    return checkpoint_folder(wildcards.model, GRID.methods[wildcards.method].init)


def align_reference(wildcards):
    _, checkpoints = GRID.methods[wildcards.method].reference_parts()
    return [checkpoint_folder(wildcards.model, checkpoint) for checkpoint in checkpoints]


def align_strategy(wildcards):
    strategy, _ = GRID.methods[wildcards.method].reference_parts()
    return strategy_json(strategy)


def align_settings(wildcards):
    return settings(algorithm_settings(GRID, wildcards.model, wildcards.method))


def ppo_data(wildcards):
    return given(algorithm_settings(GRID, wildcards.model, wildcards.method).prompts)


def dpo_data(wildcards):
    return given(algorithm_settings(GRID, wildcards.model, wildcards.method).train)


# generate.smk


def generating(wildcards):
    """The policies of a job, and their checkpoints."""
    names = POLICIES if GRID.generate_together else [wildcards.policy]
    return {name: policy_folder(wildcards.model, name) for name in names}


def generate_policies(wildcards):
    return list(generating(wildcards).values())


def generate_options(wildcards):
    return [f"--policy={name}={folder}" for name, folder in generating(wildcards).items()]


def generate_settings(wildcards):
    return settings(MODELS[wildcards.model].generate)


def score_policy(wildcards):
    return policy_folder(wildcards.model, wildcards.policy)


def score_settings(wildcards):
    return settings(MODELS[wildcards.model].score)


def generate_benchmarks():
    """The benchmarks without their order and what concerns the judge alone: these are no reason to answer again."""
    judges = ("download", "grade", "references", "judge_prompts")
    benchmarks = sorted(GRID.benchmarks.items())
    return [f"--benchmark={name}={settings(benchmark, exclude=judges)}" for name, benchmark in benchmarks]


def score_generations(wildcards):
    return f"{RESULTS}/generations/{wildcards.model}/{wildcards.policy}"


def score_reference(wildcards):
    """What the method's reference is made of; none where it moved with the policy and is gone."""
    strategy, checkpoints = GRID.methods[method_of(wildcards.policy)].reference_parts()
    return [] if strategy.moves else [checkpoint_folder(wildcards.model, checkpoint) for checkpoint in checkpoints]


def score_reference_option(wildcards):
    references = score_reference(wildcards)
    strategy, _ = GRID.methods[method_of(wildcards.policy)].reference_parts()
    return ["--reference", *references, "--strategy", strategy_json(strategy)] if references else []


# judge.smk


def judge_pairs(wildcards):
    return pairs(GRID.methods, GRID.rl_seeds, GRID.comparisons[wildcards.comparison])


def judge_input(wildcards):
    names = sorted({policy for pair in judge_pairs(wildcards) for policy in pair})
    return expand(
        f"{RESULTS}/generations/{{model}}/{{policy}}/{{benchmark}}.jsonl",
        model=wildcards.model,
        benchmark=wildcards.benchmark,
        policy=names,
    )


def judge_generations(wildcards):
    return f"{RESULTS}/generations/{wildcards.model}"


def judge_options(wildcards):
    return [part for pair in judge_pairs(wildcards) for part in ("--pair", *pair)]


def archive_inputs(wildcards):
    file = GRID.calibration.files[wildcards.archived]
    return [path for path in (file.path, file.questions) if path]


def archive_options(wildcards):
    file = GRID.calibration.files[wildcards.archived]
    return [f"--format={file.format}", file.path, *([f"--questions={file.questions}"] if file.questions else [])]


def calibration_files():
    """The archive's files, or that those which it is made of are in it; and the templates."""
    chosen = GRID.calibration
    read = expand(f"{RESULTS}/archive/{{archived}}.txt", archived=chosen.files)
    archive = read or [f"{chosen.archive}/{name}" for name in (CALLS, INDEX)]
    return archive + [path for path in [chosen.templates] if path]


def calibration_options():
    chosen = GRID.calibration
    return [f"--{name}={value}" for name in ("items", "templates") if (value := getattr(chosen, name)) is not None]


def calibration_card():
    return [str(calibration_file(Path(RESULTS)))] if GRID.calibration else []


def calibration_option():
    return [f"--calibration={path}" for path in calibration_card()]


def benchmark_files(wildcards):
    return of_benchmark(GRID.benchmarks[wildcards.benchmark])


def benchmark_option(wildcards):
    benchmark = GRID.benchmarks[wildcards.benchmark]
    return f"{wildcards.benchmark}={settings(benchmark, exclude=('download', 'grade'))}"


# report.smk


def assumptions_file():
    """The file where the config says, or beside the workflow, which may run in another folder."""
    if not GRID.assumptions:
        return []
    return [GRID.assumptions if Path(GRID.assumptions).exists() else f"{workflow.basedir}/{GRID.assumptions}"]


def assumptions_option():
    """The file and, as the config has them, the grid's settings."""
    values = json.dumps(settings_of(CONFIG))
    return [part for path in assumptions_file() for part in (f"--assumptions={path}", f"--values={values}")]
