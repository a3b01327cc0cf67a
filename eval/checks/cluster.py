"""The cluster that a profile sends jobs to: Snakemake's plugin for it, and Slurm's partitions."""

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

OF_SNAKEMAKE = ("local", "dryrun", "touch")  # executors that need no plugin
SLURM = "snakemake-executor-plugin-slurm"
SECONDS = 20
NAME = re.compile(r"[\w.,@-]+")
GPU_RESOURCES = ("gres", "gpu", "gpus", "slurm_gpus")


def checks(profile: Path | None) -> list[Check]:
    """None without a profile."""
    if profile is None:
        return [Check("cluster", "profile", _none)]
    found = read_profile(profile)
    executor = str(found.get("executor", "local"))
    checks = [Check("cluster", f"executor {executor}", partial(plugin, executor, profile))]
    if executor == "slurm":
        resources = resources_of(found)
        wanted = partitions(resources)
        for name, rules in wanted.items():
            gpus = [rule for rule in rules if any(key in resources[rule] for key in GPU_RESOURCES)]
            checks.append(Check("cluster", f"partition {name}", partial(partition, name, gpus)))
    return checks


def _none() -> str:
    raise NotChecked("jobs run on this machine; for a cluster name its profile (--profile)")


def read_profile(profile: Path) -> dict[str, Any]:
    """A profile's settings, as Snakemake reads them."""
    # Of all commands that look at a grid only this one reads profiles.
    from snakemake.cli import get_profile_dir
    from snakemake.profiles import ProfileConfigFileParser

    place = get_profile_dir(str(profile))
    if place is None:
        raise UserError(f"--profile {profile}: no profile.yaml there: name a profile's folder")
    with place[1].open(encoding="utf-8") as file:
        try:
            return dict(ProfileConfigFileParser().parse(file))
        except Exception as error:  # whatever its parser and that of the YAML raise
            reason = str(error).splitlines()[0]
            raise UserError(f"--profile {place[1]}: cannot read it ({reason}): mend it") from None


def resources_of(profile: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Resources by rule; under an empty name those of rules that set none."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for entry in profile.get("default-resources", ()):
        name, _, value = entry.partition("=")
        found[""][name] = value
    for entry in profile.get("set-resources", ()):
        rule, _, rest = entry.partition(":")
        name, _, value = rest.partition("=")
        found[rule][name] = value
    default = found[""]
    return {rule: {**default, **own} for rule, own in found.items()}


def partitions(resources: dict[str, dict[str, str]]) -> dict[str, list[str]]:
    """The partitions that are named, with the rules that go there."""
    found: dict[str, list[str]] = defaultdict(list)
    for rule, own in resources.items():
        value = own.get("slurm_partition", "").strip("'\"")
        for name in value.split(",") if NAME.fullmatch(value) else ():
            found[name].append(rule)
    return dict(found)


def plugin(executor: str, profile: Path) -> str:
    """Whether Snakemake has what it needs to send jobs there."""
    if executor in OF_SNAKEMAKE:
        return "comes with snakemake"
    package = f"snakemake-executor-plugin-{executor}"
    module = package.replace("-", "_")
    if (profile / module).is_dir() and find_spec(module) is None:
        raise UserError(f"it lies beside the profile, where Snakemake does not look: export PYTHONPATH={profile}")
    try:
        import_module(module)
    except ModuleNotFoundError as error:
        package = str(error.name).replace("_", "-")
        how = {SLURM: "--no-deps --requirement requirements-slurm.txt"}.get(package, package)
        raise UserError(f"{package} is not installed: pip install {how}") from None
    try:
        return f"{package} {metadata.version(package)}"
    except metadata.PackageNotFoundError:
        return f"{module}, beside the profile"


def partition(name: str, gpu_rules: list[str]) -> str:
    """Whether Slurm has the partition, up, and with GPUs where jobs ask for some."""
    command = ["sinfo", "--noheader", f"--partition={name}", "--format=%a|%D|%l|%G"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except FileNotFoundError:
        raise UserError("no command sinfo here: run this on the cluster's login node") from None
    except subprocess.TimeoutExpired:
        raise UserError(f"sinfo says nothing for {SECONDS} s: the cluster's controller is away, try later") from None
    if said.returncode != 0:
        raise UserError(f"sinfo fails ({said.stderr.strip()}): run this where Slurm is set up")
    rows = [line.strip().split("|") for line in said.stdout.splitlines() if line.strip()]
    if not rows:
        raise UserError("Slurm has no such partition: sinfo shows those there are; correct slurm_partition")
    if all(state != "up" for state, *_ in rows):
        raise UserError(f"it is {rows[0][0]}: take another, or ask those who run the cluster")
    if gpu_rules and not any("gpu" in gres for *_, gres in rows):
        raise UserError(f"it has no GPUs, which {', '.join(gpu_rules)} ask for: take another")
    nodes = sum(int(count) for _, count, *_ in rows)
    return f"up, {nodes} node{'s' * (nodes > 1)}, jobs of up to {rows[0][2]}"
