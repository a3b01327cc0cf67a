"""Command `doctor`: check all that a grid depends on before it costs anything.

All checks run at once, and each reports whatever the others find. The command ends within a minute.
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
from eval.costs.assumed import assumed
from eval.planning.formats import align_columns
from eval.planning.grid_plan import Plan
from salsa.config.config import Config, load_config
from salsa.runtime.errors import UserError
from salsa.runtime.texts import visible

CHECK_SECONDS = 40.0  # checks and plan together stay below a minute
OK, FAILED, NOT_CHECKED = "ok", "FAILED", "-"
INDENT = " " * (len(FAILED) + 2)
LONGEST_LINE = 120
Outcome = tuple[str, str]  # a state and its message


def all_checks(config: Config, device: str | None, count: int | None, profile: Path | None) -> list[Check]:
    """All checks of a grid."""
    gpus = devices.visible_gpus()
    job_devices = devices.job_devices(device, count, gpus, config)
    checks = [*software.checks(config), *hub.checks(config), *files.checks(config), *judge.checks(config)]
    checks += [*disk.folders(config), *devices.checks(config, gpus, job_devices[0] if job_devices else None)]
    try:
        # The plan's disk space does not depend on the device.
        plan = Plan.of(config, *(job_devices or (assumed().devices["h100"], 1)))
    except UserError as error:
        checks.append(Check("plan", "sizes", partial(_raise, error)))
    else:
        checks += disk.file_systems(config, plan)
        checks += devices.stages(plan) if job_devices else [devices.UNKNOWN_DEVICES]
    return [*checks, *cluster.checks(profile)]


def _raise(error: UserError) -> str:
    raise error


def run_checks(checks: Sequence[Check], seconds: float) -> list[Outcome]:
    """Each check's state and message. A check that takes longer than `seconds` has failed."""
    futures: list[Future[str]] = [Future() for _ in checks]

    def work(check: Check, future: Future[str]) -> None:
        try:
            future.set_result(check.run())
        except BaseException as error:
            future.set_exception(error)

    for check, future in zip(checks, futures, strict=True):
        # A thread pool would keep the program from ending while a name lookup hangs, and that has no timeout.
        threading.Thread(target=work, args=(check, future), daemon=True).start()
    wait(futures, timeout=seconds)
    return [_outcome(future, seconds) for future in futures]


def _outcome(future: "Future[str]", seconds: float) -> Outcome:
    if not future.done():
        return FAILED, f"no answer within {seconds:g} s: check that network and disk respond, then run this again"
    try:
        return OK, future.result()
    except UserError as error:
        return FAILED, str(error)
    except NotChecked as error:
        return NOT_CHECKED, str(error)


def format_outcomes(outcomes: Sequence[tuple[Check, Outcome]], width: int) -> list[str]:
    """The lines to print: one per check that did not fail, then the failures, wrapped to `width`.

    Checks that fail with the same message share its paragraph.
    """
    rows = [(state, check.topic, check.subject, message) for check, (state, message) in outcomes if state != FAILED]
    failures = defaultdict(list)
    for check, (state, message) in outcomes:
        if state == FAILED:
            failures[message].append(f"{check.topic} {check.subject}")
    wrap = partial(textwrap.wrap, width=width, break_long_words=False, break_on_hyphens=False)
    lines = align_columns(rows, left=len(rows[0])) if rows else []
    for message, names in failures.items():
        lines += ["", *wrap(", ".join(names), initial_indent=f"{FAILED}  ", subsequent_indent=INDENT)]
        lines += wrap(message, initial_indent=INDENT, subsequent_indent=INDENT)
    return lines


def run(arguments: argparse.Namespace) -> None:
    config = load_config(*arguments.config)
    checks = all_checks(config, arguments.device, arguments.count, arguments.profile)
    outcomes = list(zip(checks, run_checks(checks, CHECK_SECONDS), strict=True))
    width = min(LONGEST_LINE, shutil.get_terminal_size().columns)
    print(visible("\n".join(format_outcomes(outcomes, width))))
    failed = sum(state == FAILED for _, (state, _) in outcomes)
    if failed:
        raise UserError(f"{failed} of {len(outcomes)} checks failed: follow their instructions, then run this again")
