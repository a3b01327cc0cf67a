"""Recipes of environments, container images and conda agree with the lock and pyproject.toml."""

import re
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "requirements.lock").read_text(), re.MULTILINE))


def words(text: str) -> str:
    return " ".join(text.replace("\\\n", " ").split())


def test_both_images_agree():
    docker, apptainer = (words((ROOT / name).read_text()) for name in ("Dockerfile", "apptainer.def"))
    [base] = re.findall(r"FROM (\S+)", docker)
    assert f"From: {base} " in apptainer
    for command in (r"pip install --no-cache-dir [\w./= -]+[\w./=]", r"git config --system --add safe.directory '\*'"):
        assert re.findall(command, docker) == re.findall(command, apptainer) != []


def test_images_install_the_lock_and_the_extras_of_clusters():
    docker = words((ROOT / "Dockerfile").read_text())
    extras = [PROJECT["optional-dependencies"][name] for name in ("vllm", "kubernetes")]
    assert f"--requirement /opt/requirements.lock {' '.join(line for extra in extras for line in extra)} &&" in docker
    assert (ROOT / ".dockerignore").read_text().split() == ["*", "!requirements.lock"]


def test_lock_meets_the_requirements_and_python_versions_agree():
    extras = [PROJECT["optional-dependencies"][name] for name in ("train", "report", "workflow", "dev")]
    for line in [*PROJECT["dependencies"], *(line for extra in extras for line in extra)]:
        wanted = Requirement(line)
        assert LOCK[wanted.name.replace("_", "-").lower()] in wanted.specifier, line
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    [python] = re.findall(r"FROM python:(3\.\d+)\.", (ROOT / "Dockerfile").read_text())
    assert environment["dependencies"][0] == f"python={python}"
    assert f"{python}.0" in SpecifierSet(PROJECT["requires-python"])
    assert environment["dependencies"][-1] == {"pip": ["--requirement requirements.lock", "--editable ."]}
