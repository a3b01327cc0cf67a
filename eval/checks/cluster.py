"""Checks of the cluster that a profile uses: Snakemake's executor plugin, and Slurm's partitions."""

import re
import subprocess
from collections import defaultdict
from functools import partial
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from eval.checks.check import Check, NotChecked
from salsa.runtime.errors import UserError
from salsa.runtime.texts import counted

BUILT_IN_EXECUTORS = ("local", "dryrun", "touch")
SLURM = "snakemake-executor-plugin-slurm"
SINFO_SECONDS = 20
PARTITION_NAMES = re.compile(r"[\w.,@-]+")
GPU_RESOURCES = ("gres", "gpu", "gpus", "slurm_gpus")


def checks(profile: Path | None) -> list[Check]:
    """The checks of a profile; without one, a line that says how to name it."""
    if profile is None:
        return [Check("cluster", "profile", _no_profile)]
    settings = read_profile(profile)
    executor = str(settings.get("executor", "local"))
    checks = [Check("cluster", f"executor {executor}", partial(check_plugin, executor, profile))]
    if executor == "slurm":
        resources = resources_by_rule(settings)
        for name, rules in rules_by_partition(resources).items():
            gpu_rules = [rule for rule in rules if any(key in resources[rule] for key in GPU_RESOURCES)]
            checks.append(Check("cluster", f"partition {name}", partial(check_partition, name, gpu_rules)))
    return checks


def _no_profile() -> str:
    raise NotChecked("jobs run on this machine; to check a cluster, name its profile with --profile")


def read_profile(profile: Path) -> dict[str, Any]:
    """A profile's settings, as Snakemake reads them."""
    # Importing Snakemake takes a while, and only this check needs it.
    from snakemake.cli import get_profile_dir
    from snakemake.profiles import ProfileConfigFileParser

    paths = get_profile_dir(str(profile))
    if paths is None:
        raise UserError(f"--profile {profile}: the folder has no profile.yaml: name a profile's folder")
    with paths[1].open(encoding="utf-8") as file:
        try:
            return dict(ProfileConfigFileParser().parse(file))
        except Exception as error:  # Snakemake's parser and the YAML parser document no common error type
            reason = str(error).splitlines()[0]
            raise UserError(f"--profile {paths[1]}: cannot read the profile ({reason}): correct the file") from None


def resources_by_rule(profile: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Each rule's resources; the key "" holds the defaults of rules that set none."""
    resources: dict[str, dict[str, str]] = defaultdict(dict)
    for entry in profile.get("default-resources", ()):
        name, _, value = entry.partition("=")
        resources[""][name] = value
    for entry in profile.get("set-resources", ()):
        rule, _, rest = entry.partition(":")
        name, _, value = rest.partition("=")
        resources[rule][name] = value
    default = resources[""]
    return {rule: {**default, **of_rule} for rule, of_rule in resources.items()}


def rules_by_partition(resources: dict[str, dict[str, str]]) -> dict[str, list[str]]:
    """The rules that go to each Slurm partition of the profile."""
    rules: dict[str, list[str]] = defaultdict(list)
    for rule, of_rule in resources.items():
        value = of_rule.get("slurm_partition", "").strip("'\"")
        for name in value.split(",") if PARTITION_NAMES.fullmatch(value) else ():
            rules[name].append(rule)
    return dict(rules)


def check_plugin(executor: str, profile: Path) -> str:
    """Check that Snakemake can import the executor's plugin."""
    if executor in BUILT_IN_EXECUTORS:
        return "comes with Snakemake"
    package = f"snakemake-executor-plugin-{executor}"
    module = package.replace("-", "_")
    if (profile / module).is_dir() and find_spec(module) is None:
        raise UserError(
            f"the plugin is in the profile's folder, where Snakemake does not look: export PYTHONPATH={profile}"
        )
    try:
        import_module(module)
    except ModuleNotFoundError as error:
        package = str(error.name).replace("_", "-")
        how = {SLURM: "--no-deps --requirement requirements-slurm.txt"}.get(package, package)
        raise UserError(f"{package} is not installed: pip install {how}") from None
    try:
        return f"{package} {metadata.version(package)}"
    except metadata.PackageNotFoundError:
        return f"{module}, from the profile's folder"


def check_partition(name: str, gpu_rules: list[str]) -> str:
    """Check that Slurm has the partition, that it is up, and that it has GPUs if rules request GPUs there."""
    command = ["sinfo", "--noheader", f"--partition={name}", "--format=%a|%D|%l|%G"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=SINFO_SECONDS)
    except FileNotFoundError:
        raise UserError("sinfo is not installed here: run this on the cluster's login node") from None
    except subprocess.TimeoutExpired:
        raise UserError(
            f"sinfo did not answer within {SINFO_SECONDS} s: Slurm's controller may be down; try again later"
        ) from None
    if result.returncode != 0:
        raise UserError(f"sinfo failed ({result.stderr.strip()}): run this on a machine where Slurm is set up")
    rows = [line.strip().split("|") for line in result.stdout.splitlines() if line.strip()]
    if not rows:
        raise UserError("Slurm has no such partition: sinfo lists the partitions; correct slurm_partition")
    if all(state != "up" for state, *_ in rows):
        raise UserError(f"the partition is {rows[0][0]}: use another, or ask the cluster's administrators")
    if gpu_rules and not any("gpu" in gres for *_, gres in rows):
        raise UserError(f"the partition has no GPUs, but {', '.join(gpu_rules)} request them: use another")
    nodes = sum(int(count) for _, count, *_ in rows)
    return f"up, {counted(nodes, 'node')}, jobs of up to {rows[0][2]}"
