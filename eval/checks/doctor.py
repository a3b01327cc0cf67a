"""Command `doctor`: looks, before anything is spent, at all that a grid depends on.

All checks run at once and each has its say, whatever the others find. None is waited for longer than a minute.
"""

import argparse
import shutil
import textwrap
import threading
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import Future, wait
from functools import partial
from pathlib import Path

from eval.checks import cluster, devices, disk, files, hub, judge, software
from eval.checks.check import Check, NotChecked
from eval.planning.assumed import assumed
from eval.planning.plan import Plan, aligned
from salsa.config.config import Config, load_config
from salsa.runtime.errors import UserError
from salsa.runtime.texts import visible

SECONDS = 40.0  # for checks, so that with the plan it is less than a minute
OK, FAILED, NOT_CHECKED = "ok", "FAILED", "-"
INDENT = " " * (len(FAILED) + 2)
LONGEST_LINE = 120
Outcome = tuple[str, str]  # a state, and what is to be said


def every(config: Config, device: str | None, count: int | None, profile: Path | None) -> list[Check]:
    """All checks of a grid."""
    gpus = devices.here()
    given = devices.jobs_get(device, count, gpus, config)
    found = [*software.checks(config), *hub.checks(config), *files.checks(config), *judge.checks(config)]
    found += [*disk.folders(config), *devices.checks(config, gpus, given[0] if given else None)]
    try:
        # Disks are the same for any device.
        plan = Plan.of(config, *(given or (assumed().devices["h100"], 1)))
    except UserError as error:
        found.append(Check("plan", "sizes", partial(_raise, error)))
    else:
        found += [*disk.systems(config, plan), *(devices.stages(plan) if given else [devices.UNKNOWN])]
    return [*found, *cluster.checks(profile)]


def _raise(error: UserError) -> str:
    raise error


def outcomes(checks: Sequence[Check], seconds: float) -> list[Outcome]:
    """Of each check its state and what it says, after so many seconds at most."""
    futures: list[Future[str]] = [Future() for _ in checks]

    def work(check: Check, future: Future[str]) -> None:
        try:
            future.set_result(check.look())
        except BaseException as error:
            future.set_exception(error)

    for check, future in zip(checks, futures, strict=True):
        # A pool would be waited for when the program ends, and a name server that hangs heeds no timeout.
        threading.Thread(target=work, args=(check, future), daemon=True).start()
    wait(futures, timeout=seconds)
    return [_outcome(future, seconds) for future in futures]


def _outcome(future: "Future[str]", seconds: float) -> Outcome:
    if not future.done():
        return FAILED, f"no answer in {seconds:g} s: look whether the network or the disk hangs, and run this again"
    try:
        return OK, future.result()
    except UserError as error:
        return FAILED, str(error)
    except NotChecked as error:
        return NOT_CHECKED, str(error)


def lines(found: Sequence[tuple[Check, Outcome]], width: int) -> list[str]:
    """What was found, a line each; then what failed, each text once, folded to the width."""
    rows = [(state, check.topic, check.what, said) for check, (state, said) in found if state != FAILED]
    failed = defaultdict(list)
    for check, (state, said) in found:
        if state == FAILED:
            failed[said].append(f"{check.topic} {check.what}")
    fold = partial(textwrap.wrap, width=width, break_long_words=False, break_on_hyphens=False)
    text = aligned(rows, left=len(rows[0])) if rows else []
    for said, names in failed.items():
        text += ["", *fold(", ".join(names), initial_indent=f"{FAILED}  ", subsequent_indent=INDENT)]
        text += fold(said, initial_indent=INDENT, subsequent_indent=INDENT)
    return text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", type=Path, nargs="+", required=True, help="the grid; further files are merged into it"
    )
    parser.add_argument(
        "--device", choices=sorted(assumed().devices), help="what jobs run on; default: the GPUs of this machine"
    )
    parser.add_argument("--count", type=int, help="how many devices there are; default: those here, or 1")
    parser.add_argument("--profile", type=Path, help="folder of the Snakemake profile that sends jobs to a cluster")


def run(arguments: argparse.Namespace) -> None:
    if arguments.count is not None and arguments.count < 1:
        raise UserError(f"--count {arguments.count}: one device or more")
    config = load_config(*arguments.config)
    checks = every(config, arguments.device, arguments.count, arguments.profile)
    found = list(zip(checks, outcomes(checks, SECONDS), strict=True))
    print(visible("\n".join(lines(found, min(LONGEST_LINE, shutil.get_terminal_size().columns)))))
    failed = sum(state == FAILED for _, (state, _) in found)
    if failed:
        raise UserError(f"{failed} of {len(found)} checks failed: do what they say, then run this again")
