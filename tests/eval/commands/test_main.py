"""The console script: groups, help, completion, and the arguments that it passes on."""

import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.shell_completion import get_completion_class
from click.testing import CliRunner

import eval.commands.run
from eval.__main__ import COMMANDS as EVAL
from eval.commands.main import JUDGE, MEASURE, TRAIN, program
from eval.commands.run import snakemake_words
from salsa.__main__ import COMMANDS as SALSA

ROOT = Path(__file__).parents[3]
CONFIG = str(ROOT / "config/smoke.yaml")


def call(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(program, words, prog_name="salsa")
    return result.exit_code, result.output


def test_every_command_has_one_place():
    grid = {"plan", "compare", "doctor", "schema"}
    assert set(TRAIN) | grid == set(SALSA) and not set(TRAIN) & grid
    assert {*JUDGE, *MEASURE, "judge"} == {*EVAL, "pairs"} and not set(JUDGE) & set(MEASURE)


def test_help_groups_the_commands():
    status, text = call("--help")
    assert status == 0
    order = ["Work on a grid:", "run", "plan", "report", "Run one stage:", "train", "judge", "Set up:", "completion"]
    places = [text.index(f"\n{'' if name.endswith(':') else '  '}{name}") for name in order]
    assert places == sorted(places)
    assert "align" in call("train", "--help")[1] and "grade" in call("judge")[1]


def test_help_takes_less_than_a_third_of_a_second_and_imports_no_stage():
    script = """
import resource, sys
from eval.commands.main import program
program(["--help"], standalone_mode=False)
heavy = {"torch", "transformers", "pydantic", "pandas", "numpy", "snakemake", "yaml", "openai"} & set(sys.modules)
assert not heavy, heavy
used = resource.getrusage(resource.RUSAGE_SELF)
print("seconds", used.ru_utime + used.ru_stime)
"""
    printed = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert float(printed.split()[-1]) < 0.3


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_the_groups(shell):
    status, script = call("completion", shell)
    assert status == 0 and "_SALSA_COMPLETE" in script
    complete = get_completion_class(shell)(program, {}, "salsa", "_SALSA_COMPLETE")
    assert {item.value for item in complete.get_completions(["train"], "s")} == {"sft", "soup"}
    assert {item.value for item in complete.get_completions(["run"], "--c")} == {"--config", "--cores"}


def test_a_stage_parses_its_own_arguments():
    status, text = call("train", "soup", "--ingredient=a=0.5", "--ingredient=b=0.4", "--out", "nowhere")
    assert status == 1 and "error: --ingredient: soup weights sum to 0.9" in text
    status, text = call("train", "soup", "--help")
    assert status == 0 and "usage: salsa train soup" in text


def test_run_gives_snakemake_its_words(monkeypatch, tmp_path):
    def words(*given, **options) -> list[str]:
        choices = {"configs": (), "cores": None, "profile": None, "dry_run": False, "folder": ROOT, **options}
        return snakemake_words(given, **choices)

    assert words() == ["--cores", "all"]
    assert words("tables", "--forcerun", "tables", configs=("a", "b"), cores="2", dry_run=True) == [
        *("tables", "--forcerun", "tables", "--cores", "2", "--dry-run", "--configfile", "a", "b")
    ]
    assert words(profile="profiles/slurm") == ["--profile", "profiles/slurm"]
    assert words(folder=tmp_path)[:2] == ["--snakefile", str(ROOT / "Snakefile")]
    with pytest.raises(click.UsageError, match=f"is a config, not a target: write --config {CONFIG}"):
        words(CONFIG)
    monkeypatch.setattr(eval.commands.run, "CODE", tmp_path)
    with pytest.raises(click.UsageError, match="run this in a checkout"):
        words(folder=tmp_path)


def test_run_starts_snakemake(monkeypatch):
    started = []
    monkeypatch.setattr("os.execv", lambda program, words: started.append(words))
    monkeypatch.chdir(ROOT)
    assert call("run", "--config", CONFIG, "-n", "results/x", "--rerun-triggers", "mtime")[0] == 0
    words = ["results/x", "--rerun-triggers", "mtime", "--cores", "all", "--dry-run", "--configfile", CONFIG]
    assert started == [[sys.executable, "-m", "snakemake", *words]]
    status, text = call("run", "--config", "nowhere.yaml")
    assert status == 2 and "File 'nowhere.yaml' does not exist" in text


def test_report_needs_results(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, text = call("report", "--config", CONFIG)
    assert status == 1 and "missing; make them with salsa run" in text
