"""The console script. Help and completion import no stage, so they take a fraction of a second."""

from collections.abc import Mapping
from importlib.metadata import version

import click
from click.shell_completion import get_completion_class

from eval.__main__ import COMMANDS as EVAL
from eval.__main__ import GRID
from eval.commands.run import run
from salsa.__main__ import COMMANDS as SALSA
from salsa.runtime.command import run_command

Table = Mapping[str, tuple[str, str]]  # command: (module, help line)
SHELLS = ("bash", "zsh", "fish")
JUDGE = ("pairs", "grade", "calibrate", "render", "parse", "import", "table", "gold-judge", "published")
MEASURE = (
    "generate",
    "score",
    "alpha",
    "greedy",
    "frontier",
    "overlap",
    "download",
    "tables",
    "figures",
    "report",
    "show",
)
TRAIN = (
    "world",
    "base",
    "fetch",
    "data",
    "sft",
    "soup",
    "warp",
    "merge",
    "perturb",
    "reward",
    "combine",
    "align",
    "dpo",
)
WHOLE_GRID: Table = {
    **GRID,
    "report": ("eval.commands.rebuild", "rebuild tables, figures and report from stored results"),
    "schema": SALSA["schema"],
}


def select(table: Table, names: tuple[str, ...]) -> Table:
    """Some commands of a table."""
    return {name: table[name] for name in names}


class Stage(click.Command):
    """A command that another module defines with argparse. It parses its own arguments, --help among them."""

    def __init__(self, name: str, module: str, text: str):
        super().__init__(name, help=text, short_help=text, add_help_option=False)
        self.module = module
        self.allow_extra_args = self.ignore_unknown_options = True
        self.allow_interspersed_args = False

    def invoke(self, context: click.Context) -> None:
        context.exit(run_command(context.command_path, self.module, self.help or "", context.args))


class Section(click.Group):
    """A group whose help lists its commands in the order of definition."""

    def __init__(self, name: str, text: str, table: Table):
        super().__init__(name, help=text)
        for command, (module, line) in table.items():
            self.add_command(Stage(command, module, line))

    def list_commands(self, context: click.Context) -> list[str]:
        return list(self.commands)


class Salsa(click.Group):
    """The program. Its help lists commands under headings."""

    headings: Mapping[str, tuple[str, ...]] = {
        "Work on a grid": ("run", *WHOLE_GRID),
        "Run one stage": ("train", "measure", "judge"),
        "Set up": ("completion",),
    }

    def list_commands(self, context: click.Context) -> list[str]:
        return [name for names in self.headings.values() for name in names]

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        for heading, names in self.headings.items():
            with formatter.section(heading):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(90)) for name in names])


@click.group(cls=Salsa, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(version("salsa"), prog_name="salsa")
def program() -> None:
    """Test whether a soup of SFT models is a better KL reference for PPO than one SFT model.

    `salsa run` runs the mini grid in the current folder; `salsa COMMAND --help` explains a command.
    """


@program.command()
@click.argument("shell", type=click.Choice(SHELLS), default="bash")
def completion(shell: str) -> None:
    """Print a completion script for the shell.

    For bash: eval "$(salsa completion bash)"
    """
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(program, {}, "salsa", "_SALSA_COMPLETE").source())


def add_commands() -> None:
    """Add the commands of all modules."""
    program.add_command(run)
    for name, (module, text) in WHOLE_GRID.items():
        program.add_command(Stage(name, module, text))
    sections: dict[str, tuple[str, Table]] = {
        "train": ("train models: base, SFT, soup, reward model, PPO, DPO", select(SALSA, TRAIN)),
        "measure": ("generate answers, score them, make tables", select(EVAL, MEASURE)),
        "judge": ("judge answers, grade them, compare judges", select({**EVAL, "pairs": EVAL["judge"]}, JUDGE)),
    }
    for name, (text, table) in sections.items():
        program.add_command(Section(name, text, table))


add_commands()


def main() -> None:
    """The entry point of pyproject.toml."""
    program(prog_name="salsa")
