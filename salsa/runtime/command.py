"""How a command starts and how it ends: its arguments, its log, and one line for what a user can mend."""

import argparse
import gc
import importlib
import logging
import signal
import sys
from collections.abc import Mapping

from salsa.runtime.errors import RESUBMIT, Interrupted, UserError, disk_fault
from salsa.runtime.log import log
from salsa.runtime.texts import VisibleFormatter, visible


def main(program: str, commands: Mapping[str, tuple[str, str]]) -> int:
    """Runs the stage named on the command line; a UserError becomes one line and exit status 1, an Interrupted
    one line and RESUBMIT, Ctrl-C one line and 130 as in shells, a full or closed disk one line and 1.

    `commands` maps a name to its module and help line. Only the module of the command asked for is imported
    (its `add_arguments(parser)` and `run(arguments)`), so that tables never wait for torch.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {program}")
    listing = "\n".join(f"  {name:<12}{text}" for name, (_, text) in commands.items())
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = f"commands:\n{listing}\n\npython -m {program} COMMAND --help shows a command's arguments"
    parser.add_argument("command", choices=commands, metavar="COMMAND")
    name = parser.parse_args(sys.argv[1:2]).command
    module_name, text = commands[name]
    handler = logging.StreamHandler()
    handler.setFormatter(VisibleFormatter("%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    log.setLevel(logging.INFO)
    try:
        # A sixth of the start-up of torch and transformers is the collector's search through what they define.
        gc.disable()
        module = importlib.import_module(module_name)
        gc.freeze()
        gc.enable()
        parser = argparse.ArgumentParser(prog=f"python -m {program} {name}", description=text)
        module.add_arguments(parser)
        module.run(parser.parse_args(sys.argv[2:]))
    except UserError as error:
        print(f"error: {visible(str(error))}", file=sys.stderr)
        return 1
    except Interrupted as interruption:
        print(interruption, file=sys.stderr)
        return RESUBMIT
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from here", file=sys.stderr)
        return 128 + signal.SIGINT
    except Exception as error:
        if (line := disk_fault(error)) is None:
            raise
        print(f"error: {visible(line)}", file=sys.stderr)
        return 1
    return 0
