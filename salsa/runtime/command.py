"""Run a stage from the command line: parse arguments, set up the log, turn errors into one line and an exit status."""

import argparse
import gc
import importlib
import logging
import os
import shlex
import signal
import sys
from collections.abc import Mapping, Sequence

from salsa.runtime.errors import RESUBMIT, Interrupted, UserError, disk_fault
from salsa.runtime.log import log
from salsa.runtime.texts import VisibleFormatter, visible

# Packages that only an extra installs, by their import name.
EXTRAS = {
    **dict.fromkeys(
        ("accelerate", "datasets", "peft", "safetensors", "tokenizers", "torch", "transformers", "trl"), "train"
    ),
    **dict.fromkeys(("jinja2", "matplotlib"), "report"),
    "snakemake": "workflow",
    "vllm": "vllm",
    **dict.fromkeys(("tensorboard", "wandb"), "trackers"),
}


def main(program: str, commands: Mapping[str, tuple[str, str]]) -> int:
    """Run the command named on the command line, for `python -m PROGRAM COMMAND …`; returns its exit status.

    `commands` maps each name to its module and help line.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {program}")
    listing = "\n".join(f"  {name:<12}{text}" for name, (_, text) in commands.items())
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = f"commands:\n{listing}\n\npython -m {program} COMMAND --help shows a command's arguments"
    parser.add_argument("command", choices=commands, metavar="COMMAND")
    name = parser.parse_args(sys.argv[1:2]).command
    module, text = commands[name]
    return run_command(f"python -m {program} {name}", module, text, sys.argv[2:])


def parse(
    module_name: str, words: Sequence[str], program: str | None = None, text: str | None = None
) -> argparse.Namespace:
    """Parse the arguments of a module's command.

    The module's room has `arguments.py`, in which the function of the module's name adds the arguments to a parser. It
    may set a default `check`: a function that checks them together and fills in what is left out.
    """
    room, _, stage = module_name.rpartition(".")
    parser = argparse.ArgumentParser(prog=program, description=text)
    getattr(importlib.import_module(f"{room}.arguments"), stage)(parser)
    arguments = parser.parse_args(words)
    if parser.get_default("check"):
        arguments.check(arguments)
    return arguments


def run_command(program: str, module_name: str, text: str, words: Sequence[str]) -> int:
    """Run a module's command with the arguments `words`; returns the exit status.

    The module has `run(arguments)`. It is imported only if the arguments are right (see `parse`).

    Exit status: 0; 1 for a UserError, a missing package or a disk that cannot be written; RESUBMIT if the stage stopped
    on request; 130 for Ctrl-C. All but 0 come with one line on stderr. Other exceptions are bugs and keep their
    traceback.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(VisibleFormatter("%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    log.setLevel(logging.INFO)
    try:
        arguments = parse(module_name, words, program, text)
        # Importing torch and transformers is a sixth faster without garbage collection.
        gc.disable()
        module = importlib.import_module(module_name)
        gc.freeze()
        gc.enable()
        # A log begins with the command, so that it can be run again. With several processes the first one writes it.
        if getattr(arguments, "out", None) and not sys.stderr.isatty() and os.environ.get("RANK", "0") == "0":
            log.info("%s %s", program, shlex.join(words))
        module.run(arguments)
    except UserError as error:
        print(f"error: {visible(str(error))}", file=sys.stderr)
        return 1
    except Interrupted as interruption:
        print(interruption, file=sys.stderr)
        return RESUBMIT
    except KeyboardInterrupt:
        print("interrupted: rerun the same command to resume", file=sys.stderr)
        return 128 + signal.SIGINT
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        print(f"error: {package} is not installed: pip install 'salsa[{EXTRAS[package]}]'", file=sys.stderr)
        return 1
    except Exception as error:
        if (line := disk_fault(error)) is None:
            raise
        print(f"error: {visible(line)}", file=sys.stderr)
        return 1
    return 0
