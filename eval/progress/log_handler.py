"""Snakemake's logger plugin: turns its log records into what a person wants to see.

Warnings and errors always appear. Snakemake's own output comes back with --verbose, --printshellcmds or --debug-dag.
"""

import logging
import os
import re
import signal
import sys
from logging import LogRecord
from typing import TYPE_CHECKING, TextIO

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent
from snakemake_interface_logger_plugins.settings import OutputSettingsLoggerInterface

from eval.progress.failures import CommandEnd, advice, failure, read_end
from eval.progress.lines import Lines
from eval.progress.run_state import Job, RunState, clock
from salsa.runtime.texts import visible

if TYPE_CHECKING:
    from eval.progress.bars import Bars

# Beginnings of Snakemake's messages.
NOTHING_TO_DO = "Nothing to be done"
STOPPING = "Terminating processes on user request"
RESTARTED = re.compile(r"Trying to restart job (\d+)")
# Snakemake adds these after a failed job. The job's own message is enough.
AFTER_FAILURE = re.compile("Exiting because a job execution failed|At least one job did not complete successfully")
INTERRUPTED = f"exit status {128 + signal.SIGINT}"  # of a stage that Ctrl-C ended
LONG = 100  # characters: a longer reason is shown without its files


def job_name(wildcards: dict[str, object] | None) -> str:
    """The values of a job's wildcards as words; the number of a reward model follows its name: r3.2."""
    return " ".join(str(value).lstrip("-") for value in (wildcards or {}).values() if str(value)).replace(" .", ".")


def short_reason(reason: str) -> str:
    """Snakemake's reasons to run a job, without long lists of files."""
    clauses = re.split("; (?=[A-Z])", reason)
    return "; ".join(clause if len(clause) <= LONG else clause.partition(":")[0] for clause in clauses)


def is_terminal(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def choose_display(settings: OutputSettingsLoggerInterface) -> "Lines | Bars":
    """Bars on a terminal, lines elsewhere and for the jobs of a dry run."""
    if settings.dryrun:
        return Lines(sys.stdout)
    if not is_terminal(sys.stderr):
        return Lines(sys.stderr)
    # Loading rich takes time that only a terminal needs.
    from rich.console import Console

    from eval.progress.bars import Bars

    return Bars(Console(file=sys.stderr, force_terminal=True, no_color=settings.nocolor or None))


class LogHandler(LogHandlerBase):
    """Handles the records of one run. Snakemake calls it from one thread."""

    def __post_init__(self) -> None:
        settings = self.common_settings
        self.is_off = bool(settings.verbose or settings.printshellcmds or settings.debug_dag)
        self.run = RunState()
        self.jobs_table = ""  # of a dry run
        self.before_start: list[str] = []
        self.command_ends: list[CommandEnd] = []
        self.has_started = self.is_interrupted = self.is_closed = False
        self.display = choose_display(settings)

    @property
    def writes_to_stream(self) -> bool:
        """If this is false, Snakemake adds its own output."""
        return not self.is_off

    @property
    def writes_to_file(self) -> bool:
        return False

    @property
    def has_filter(self) -> bool:
        """Snakemake's own filter serves, so that --quiet works."""
        return False

    @property
    def has_formatter(self) -> bool:
        return True

    @property
    def needs_rulegraph(self) -> bool:
        return False

    def emit(self, record: LogRecord) -> None:
        if self.is_off:
            return
        try:
            self.handle_record(record)
        except Exception:
            self.handleError(record)

    def handle_record(self, record: LogRecord) -> None:
        event = getattr(record, "event", None)
        if event == LogEvent.WORKFLOW_STARTED:
            self.has_started = True
        elif event == LogEvent.RUN_INFO:
            self.run.add_stages({name: jobs for name, jobs in record.stats.items() if name != "total"})  # type: ignore[attr-defined]
            self.jobs_table = record.getMessage()
        elif event == LogEvent.JOB_INFO:
            self.start(record)
        elif event == LogEvent.JOB_FINISHED:
            job = self.run.finish(record.job_id, record.created)  # type: ignore[attr-defined]
            if job is not None and not job.prints:
                self.display.finish(self.run, job, record.created)
        elif event == LogEvent.JOB_ERROR:
            self.fail(record)
        elif hasattr(record, "planned_seconds"):
            self.display.plan(self.run, record.planned_seconds)
        elif event in (None, LogEvent.ERROR):
            self.say(record)

    def start(self, record: LogRecord) -> None:
        """A job starts; in a dry run it would start."""
        fields = vars(record)
        job = Job(
            number=fields["jobid"],
            stage=fields["rule_name"],
            name=job_name(fields["wildcards"]),
            command=fields["shellcmd"] or "",
            logs=tuple(fields["log"]),
            started=record.created,
            prints=bool(fields["shellcmd"]) and not fields["output"],
        )
        if self.common_settings.dryrun:
            self.display.say([f"{job.title}  ({short_reason(fields['reason'])})"])
            return
        self.run.start(job)
        self.display.start(self.run, job)

    def fail(self, record: LogRecord) -> None:
        fields = vars(record)
        job = self.run.fail(fields["jobid"], record.created)
        if job is None:  # --quiet rules hid its start
            name = fields["rule_name"]
            job = Job(fields["jobid"], name, "", fields["shellcmd"] or "", tuple(fields["log"]), record.created)
        command = job.command.strip()
        how = next((end.how for end in reversed(self.command_ends) if command and end.command.endswith(command)), "")
        if self.is_interrupted or how == INTERRUPTED:
            self.is_interrupted = True
            self.run.failed.pop(job.number, None)
        else:
            self.display.say(failure(job, record.created, how, fields["aux"]), "red")

    def say(self, record: LogRecord) -> None:
        """A message that belongs to no job."""
        text = record.getMessage()
        if record.levelno >= logging.WARNING:
            self.before_start.clear()
            if end := read_end(text):
                self.command_ends.append(end)
            elif not ((self.run.failed or self.is_interrupted) and AFTER_FAILURE.search(text)):
                self.display.say([visible(text)], "red" if record.levelno >= logging.ERROR else "yellow")
        elif not self.has_started:
            self.before_start.append(text)
        elif text.startswith(STOPPING):
            self.is_interrupted = True
            self.display.say(["Interrupted: the running jobs are being stopped."], "yellow")
        elif text.startswith(NOTHING_TO_DO):
            self.display.say([text])
        elif (match := RESTARTED.match(text)) and (job := self.run.failed.get(int(match[1]))):
            self.display.say([f"Restarted: {job.title}"], "yellow")

    def close(self) -> None:
        """The run is over: say how it ended. Snakemake closes a handler, and logging does once more at exit."""
        if not self.is_off and not self.is_closed:
            self.is_closed = True
            self.display.stop()
            self.display.say(self.last_words())
        super().close()

    def last_words(self) -> list[str]:
        if self.common_settings.dryrun:
            return [self.jobs_table] if self.jobs_table else []
        if not self.has_started:
            return self.before_start
        run = self.run
        if self.is_interrupted:
            return [f"Interrupted: {run.done} of {run.total} jobs are done. Rerun the same command to resume."]
        if run.failed:
            return [advice(len(run.failed), run.done, run.total)]
        if run.done and run.done == run.total:
            jobs = "1 job" if run.done == 1 else f"{run.done} jobs"
            return [f"{jobs} in {clock(run.ended - (run.started or run.ended))}"]
        return []
