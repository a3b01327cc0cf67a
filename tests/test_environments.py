"""Recipes of environments, container images and conda agree with the lock and pyproject.toml."""

import importlib.metadata
import importlib.util
import io
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def locked() -> dict[str, str]:
    """The lock's versions for this Python and platform."""
    lines = re.findall(r"^([\w.-]+)==([^\s;]+) (?:; (.+) )?\\$", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    return {name: version for name, version, marker in lines if not marker or Marker(marker).evaluate()}


LOCK = locked()


def words(text: str) -> str:
    return " ".join(text.replace("\\\n", " ").split())


def test_both_images_agree():
    docker, apptainer = (words((ROOT / name).read_text()) for name in ("Dockerfile", "apptainer.def"))
    [base] = re.findall(r"FROM (\S+)", docker)
    assert f"From: {base} " in apptainer
    for command in (r"uv pip install [\w./= -]+[\w./=]", r"git config --system --add safe.directory '\*'"):
        assert re.findall(command, docker) == re.findall(command, apptainer) != []
    assert f"pip install --no-cache-dir uv=={LOCK['uv']} " in docker and f" uv=={LOCK['uv']} " in apptainer


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
    assert environment["dependencies"][-1] == {"pip": [f"uv=={LOCK['uv']}"]}


def load_script(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / f"scripts/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SETUP, MAKE_LOCK = load_script("environment"), load_script("lock")


def test_lock_has_all_packages_of_this_environment_with_hashes():
    own = {"salsa", "pip"}
    found = {canonicalize_name(package.name): package.version for package in importlib.metadata.distributions()}
    assert len(found) > 100
    assert {
        name: version.partition("+")[0] for name, version in found.items() if name not in own
    }.items() <= LOCK.items()
    entries = (ROOT / "requirements.lock").read_text().replace(" \\\n", " ").splitlines()[1:]
    assert all(re.search(r"^[\w.-]+==[^\s;]+( ;.+?)? +--hash=sha256:\w{64}", entry) for entry in entries)


def test_unreachable_index_is_one_line(tmp_path):
    environment = os.environ | {"UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple", "UV_HTTP_RETRIES": "0"}
    environment |= {"UV_NO_CACHE": "1", "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    environment |= {"UV_INDEX": "", "PIP_CONFIG_FILE": os.devnull}
    command = [sys.executable, str(ROOT / "scripts/environment.py"), "--venv", str(tmp_path / "venv"), "--torch=cuda"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and not done.stdout
    [line] = [line for line in done.stderr.splitlines() if not line.startswith("torch: ")]
    assert re.match(r"error: http://127\.0\.0\.1:9/simple/\S+ cannot be read \(.+\): check the network", line)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "ERROR: Could not find a version that satisfies the requirement uv==0.13.9 (from versions: none)\n"
            "ERROR: No matching distribution found for uv==0.13.9",
            "uv cannot be downloaded: check the network",
        ),
        ("  cause: Hash mismatch for `tqdm==4.70.1`\n\n  Expected:\n", "tqdm==4.70.1: the file from the index is not"),
        ("  × No solution found\n  ╰─▶ a, b\n", "× No solution found\n  ╰─▶ a, b"),
    ],
)
def test_reasons_of_a_failed_set_up(text, line):
    assert SETUP.reason(text).startswith(line)


def test_settings_of_pip_hold_for_uv(tmp_path, monkeypatch):
    for name in ("PIP_INDEX_URL", "PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (tmp_path / "pip.conf").write_text(
        "[global]\nindex-url = https://example.org/simple\nfind-links =\n"
        f"    {wheels}\n    /no/such/folder\nextra-index-url = file:///no/such/index https://example.org/more\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    authority = tmp_path / "authority.pem"
    authority.touch()
    monkeypatch.setenv("PIP_CERT", str(authority))
    assert SETUP.pip_settings(sys.executable) == {
        "SSL_CERT_FILE": str(authority),
        "UV_DEFAULT_INDEX": "https://example.org/simple",
        "UV_FIND_LINKS": str(wheels),
        "UV_INDEX": "https://example.org/more",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
    }
    monkeypatch.setenv("PIP_INDEX_URL", "https://example.org/environment")
    assert SETUP.pip_settings(sys.executable)["UV_DEFAULT_INDEX"] == "https://example.org/environment"


def test_torch_build_fits_the_machine(monkeypatch):
    reached = []

    def answer(request, timeout):
        reached.append(request.full_url)
        return io.BytesIO()

    monkeypatch.setattr(SETUP.urllib.request, "urlopen", answer)
    monkeypatch.setattr(SETUP.platform, "system", lambda: "Linux")
    monkeypatch.setattr(SETUP, "has_nvidia_gpu", lambda: False)
    assert SETUP.torch_options("auto")[0] == SETUP.torch_options("cpu")[0] == ["--torch-backend", "cpu"] and reached
    assert SETUP.torch_options("cuda")[0] == []
    monkeypatch.setattr(SETUP, "has_nvidia_gpu", lambda: True)
    assert SETUP.torch_options("auto") == ([], "torch: the build for CUDA")

    def refuse(request, timeout):
        raise SETUP.urllib.error.URLError("no route")

    monkeypatch.setattr(SETUP.urllib.request, "urlopen", refuse)
    options, text = SETUP.torch_options("cpu")
    assert options == [] and "cannot be reached" in text
    monkeypatch.setattr(SETUP.platform, "system", lambda: "Darwin")
    assert SETUP.torch_options("auto") == ([], "")


def test_lock_keeps_the_hashes_of_cpu_builds_while_torch_stays(monkeypatch):
    new, cpu, old = (f"{digit}" * 64 for digit in "abc")
    lock = (
        f"a==1 \\\n    --hash=sha256:{old}\ntorch==2.0 \\\n    --hash=sha256:{new}\nz==1 \\\n    --hash=sha256:{old}\n"
    )
    before = f"torch==2.0 \\\n    --hash=sha256:{cpu} \\\n    --hash=sha256:{new}\n"
    made = MAKE_LOCK.with_cpu_builds(lock, before)
    assert made == lock.replace(new, f"{new} \\\n    --hash=sha256:{cpu}")
    monkeypatch.setattr(MAKE_LOCK, "cpu_hashes", lambda version: {"d" * 64})
    made = MAKE_LOCK.with_cpu_builds(lock, before.replace("2.0", "1.9"))
    assert "d" * 64 in made and cpu not in made and made.startswith(lock[: lock.index("torch")])
