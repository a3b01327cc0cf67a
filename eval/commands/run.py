"""Command `run`: a front for Snakemake. Options that it does not know are passed on."""

import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from salsa.runtime.provenance import CODE


def snakefile(folder: Path) -> Path:
    """The Snakefile of the folder, or that of the source tree that this code runs from."""
    for place in (folder, CODE):
        if (place / "Snakefile").is_file():
            return place / "Snakefile"
    raise click.UsageError(f"no Snakefile in {folder}: run this in a checkout of the project")


def snakemake_words(
    words: Sequence[str], configs: Sequence[str], cores: str | None, profile: str | None, dry_run: bool, folder: Path
) -> list[str]:
    """Snakemake's arguments. --configfile comes last, because it takes all words that follow."""
    for word in words:
        if word.endswith((".yaml", ".yml")) and Path(word).is_file():
            raise click.UsageError(f"{word} is a config, not a target: write --config {word}")
    file = snakefile(folder)
    passed = [*([] if file.parent == folder else ["--snakefile", str(file)]), *words]
    if profile is None or cores is not None:
        passed += ["--cores", cores or "all"]
    passed += ["--profile", profile] if profile else []
    passed += ["--dry-run"] if dry_run else []
    return [*passed, *(["--configfile", *configs] if configs else [])]


@click.command(
    short_help="run the workflow: everything that is missing, or only the targets",
    context_settings={"ignore_unknown_options": True},
)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[TARGET]...")
@click.option(
    "--config",
    "configs",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False),
    help="The grid; repeat it to merge further files. [default: config/mini.yaml]",
)
@click.option("--cores", metavar="N", help="CPU cores to use. [default: all, or the profile's]")
@click.option("--profile", type=click.Path(exists=True, file_okay=False), help="How to run, such as profiles/slurm.")
@click.option("-n", "--dry-run", is_flag=True, help="List the jobs without running them.")
def run(
    words: tuple[str, ...], configs: tuple[str, ...], cores: str | None, profile: str | None, dry_run: bool
) -> None:
    """Run the workflow: make everything that is missing, or only the targets (rules or output files).

    Snakemake does the work. Its own options can follow, such as --forcerun tables.
    """
    if importlib.util.find_spec("snakemake") is None:
        raise click.UsageError("snakemake is not installed: pip install 'salsa[workflow]'")
    arguments = snakemake_words(words, configs, cores, profile, dry_run, Path.cwd())
    # In place of this process, so that signals reach Snakemake.
    os.execv(sys.executable, [sys.executable, "-m", "snakemake", *arguments])
