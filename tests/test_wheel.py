"""The wheel's contents, and what works with the core dependencies alone."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest

from salsa.runtime.command import EXTRAS
from tests.documented import ROOT

PACKAGES = ("salsa", "eval", "snakemake_logger_plugin_salsa")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder / "dist", folder]
    subprocess.run(command, check=True, capture_output=True)
    [path] = (folder / "dist").glob("*.whl")
    return zipfile.ZipFile(path)


def test_wheel_holds_the_packages_and_their_data_only(wheel):
    names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    kinds = ("*.py", "*.yaml", "*.j2", "*.css", "*.js")
    sources = {str(path.relative_to(ROOT)) for top in PACKAGES for kind in kinds for path in (ROOT / top).rglob(kind)}
    assert names == sources


def test_wheel_names_its_command_and_extras(wheel):
    [points] = [wheel.read(name).decode() for name in wheel.namelist() if name.endswith("entry_points.txt")]
    assert "salsa = eval.commands.main:main" in points
    [metadata] = [wheel.read(name).decode() for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    assert set(re.findall("^Provides-Extra: (.+)$", metadata, re.MULTILINE)) == set(PROJECT["optional-dependencies"])
    core = [line for line in re.findall("^Requires-Dist: (.+)$", metadata, re.MULTILINE) if "extra ==" not in line]
    assert len(core) == len(PROJECT["dependencies"])
    assert not {re.match(r"[\w-]+", line)[0] for line in core} & EXTRAS.keys()


def test_core_dependencies_suffice_for_judging_and_planning(tmp_path):
    """In a process that cannot import what the extras install."""
    script = f"""
import builtins, importlib, sys
blocked, plain = {set(EXTRAS)!r}, builtins.__import__
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError("blocked", name=name)
sys.meta_path.insert(0, Block())
from eval.judging.library import compare
kind = {{"kind": "gold", "model": "gold-judge"}}
print(compare(["What is three plus four?"], ["seven"], ["eight"], kind, ledger={str(tmp_path / "ledger")!r}))
from eval.commands.main import program
ledger, config = {str(tmp_path / "ledger")!r}, {str(ROOT / "config/mini.yaml")!r}
for words in (["judge", "table", "--ledger", ledger], ["plan", "--config", config], ["train", "sft", "--help"]):
    try:
        program(words, prog_name="salsa")
    except SystemExit as end:
        assert not end.code, (words, end.code)
try:
    given = ["--base", "b", "--settings", "{{}}", "--seed", "1", "--sft-seed", "1", "--out", "sft"]
    program(["train", "sft", *given], prog_name="salsa")
except SystemExit as end:
    assert end.code == 1
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "error: torch is not installed: pip install 'salsa[train]'" in done.stderr
