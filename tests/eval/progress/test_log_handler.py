"""Snakemake's log records, and what a person sees of them in a file."""

import logging
import re
import time
from types import SimpleNamespace

import pytest
from snakemake.exceptions import RuleException
from snakemake.logging import DefaultFilter
from snakemake.settings.enums import Quietness
from snakemake_interface_logger_plugins.common import LogEvent

from eval.progress.log_handler import LogHandler, job_name, short_reason

START = time.mktime((2026, 3, 1, 12, 0, 0, 0, 0, -1))


class Run:
    """A handler that is fed records, one second after another."""

    def __init__(self, **settings):
        usual = {"verbose": False, "printshellcmds": False, "debug_dag": False, "dryrun": False, "nocolor": False}
        self.settings = SimpleNamespace(**usual | {"quiet": set()} | settings)
        self.handler = LogHandler(self.settings, None)
        assert not self.handler.has_filter
        names = ("quiet", "debug_dag", "verbose", "dryrun", "printshellcmds")
        self.handler.addFilter(DefaultFilter(**{name: getattr(self.settings, name) for name in names}))
        self.now = START

    def log(self, text=None, event=None, level=logging.INFO, **fields):
        record = logging.LogRecord("snakemake", level, "", 0, text, None, None)
        record.__dict__ |= {"created": self.now, "event": event, **fields}
        self.now += 1
        self.handler.handle(record)

    def begin(self, **stats):
        self.log("Building DAG of jobs...")
        self.log("Workflow has started!", LogEvent.WORKFLOW_STARTED)
        self.log("Job stats: the table", LogEvent.RUN_INFO, stats={**stats, "total": sum(stats.values())})

    def start(self, number, rule, log=(), command="train", reason="", output=("file",), **wildcards):
        fields = {"jobid": number, "rule_name": rule, "wildcards": wildcards, "shellcmd": command, "log": list(log)}
        self.log("", LogEvent.JOB_INFO, reason=reason, output=list(output), **fields)

    def finish(self, number):
        self.log("", LogEvent.JOB_FINISHED, job_id=number)

    def fail(self, number, rule, command="train", status="returned non-zero exit status 1", log=(), **aux):
        said = f"RuleException:\nCalledProcessError in file \"a.smk\", line 3:\nCommand 'set -e;  {command}' {status}."
        self.log(said, LogEvent.ERROR, logging.ERROR, exception=RuleException.__name__)
        fields = {"jobid": number, "rule_name": rule, "shellcmd": command, "log": list(log), "aux": aux}
        self.log("", LogEvent.JOB_ERROR, logging.ERROR, **fields)
        self.log("Exiting because a job execution failed. Look above for error messages", None, logging.ERROR)

    def end(self):
        self.handler.close()
        self.handler.close()


def test_each_finished_job_is_one_line(capsys):
    run = Run()
    run.begin(sft=2, show=1)
    run.start(4, "sft", model="llama", seed="1")
    run.start(5, "sft", model="gemma", seed="1", replicate="-r2")
    run.log("Select jobs to execute...")
    run.finish(5)
    run.log(None, LogEvent.PROGRESS, done=1, total=3)
    run.finish(4)
    run.start(6, "show", output=())
    run.finish(6)
    run.end()
    assert capsys.readouterr().err == (
        "12:00:06  1/3     0:02  sft       gemma 1 r2\n12:00:08  2/3     0:05  sft       llama 1\n3 jobs in 0:07\n"
    )


def test_failed_job_has_its_command_and_the_end_of_its_log(capsys, tmp_path):
    log = tmp_path / "sft.log"
    noise = [f"step {i}" for i in range(5000)]
    log.write_text("\n".join([*noise, "  x = f(\x1b[31m)", "      ~~^^^", "error: data is missing: run data"]) + "\n")
    run = Run()
    run.begin(sft=3, tables=1)
    run.start(1, "sft", log=[log], command="  python -m salsa\n  sft", model="llama")
    run.start(2, "sft", model="gemma")
    run.fail(1, "sft", log=[log], command="  python -m salsa\n  sft", slurm_jobid=17)
    run.finish(2)
    run.log("WorkflowError:\nAt least one job did not complete successfully.", LogEvent.ERROR, logging.ERROR)
    run.end()
    lines = capsys.readouterr().err.splitlines()
    assert lines[:4] == [
        "FAILED after 0:03: sft llama (exit status 1)",
        "  command: python -m salsa sft",
        "  slurm_jobid: 17",
        f"  log: {log}",
    ]
    assert lines[4:-2] == [
        *(f"    {line}" for line in noise[-13:]),
        "      x = f(\\u001b[31m)",
        "    error: data is missing: run data",
    ]
    assert lines[-1] == (
        "1 of 4 jobs failed, 1 are done. Rerun the same command to go on from there. "
        "docs/troubleshooting.md has causes and remedies."
    )


def test_restarted_job_is_named_and_has_not_failed(capsys):
    run = Run()
    run.begin(sft=1)
    run.start(1, "sft", model="llama")
    run.fail(1, "sft")
    run.log("Trying to restart job 1.")
    run.start(1, "sft", model="llama")
    run.finish(1)
    run.end()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("FAILED") and lines[-3] == "Restarted: sft llama" and lines[-1].startswith("1 job in ")


@pytest.mark.parametrize(
    "words", ["error: data is missing", "ppo: stopped on SIGTERM; rerun the same command to resume"]
)
def test_what_the_stage_said_is_shown_before_a_launchers_traceback(words, capsys, tmp_path):
    log = tmp_path / "align.log"
    log.write_text("\n".join(["step 1", words, *(f"frame {i}" for i in range(40))]) + "\n")
    run = Run()
    run.begin(align=1)
    run.start(1, "align", log=[log])
    run.fail(1, "align", log=[log])
    shown = capsys.readouterr().err.splitlines()[3:]
    assert shown == [f"    {line}" for line in (words, "…", *(f"frame {i}" for i in range(25, 40)))]


def test_empty_and_missing_logs_are_named(capsys, tmp_path):
    (tmp_path / "empty.log").touch()
    run = Run()
    run.begin(sft=1)
    logs = [str(tmp_path / "empty.log"), str(tmp_path / "absent.log")]
    run.start(1, "sft", log=logs)
    run.fail(1, "sft", log=logs, status="returned non-zero exit status 137")
    said = capsys.readouterr().err
    assert f"log: {logs[0]} is empty\n" in said and f"{logs[1]} cannot be read: No such file or directory\n" in said
    assert "exit status 137, which is that of a killed process; the system kills one that takes too much memory" in said


def test_interrupted_run_has_no_failures(capsys):
    run = Run()
    run.begin(sft=3)
    for number in (1, 2, 3):
        run.start(number, "sft")
    run.finish(1)
    run.fail(2, "sft", status="returned non-zero exit status 130")
    run.log("Terminating processes on user request, this might take some time.")
    run.fail(3, "sft")
    run.end()
    said = capsys.readouterr().err.splitlines()
    assert said[1:] == [
        "Interrupted: the running jobs are being stopped.",
        "Interrupted: 1 of 3 jobs are done. Rerun the same command to resume.",
    ]


def test_warnings_and_errors_are_shown_and_small_talk_is_not(capsys):
    run = Run()
    run.begin(sft=1)
    run.log("Using shell: /usr/bin/bash")
    run.log("the disk is \x1b[2Jslow", level=logging.WARNING)
    run.log("Nothing to be done (all requested files are present and up to date).")
    run.end()
    assert capsys.readouterr().err == (
        "the disk is \\u001b[2Jslow\nNothing to be done (all requested files are present and up to date).\n"
    )


def test_messages_of_a_run_that_never_starts_are_shown_unless_it_fails(capsys):
    run = Run()
    run.log("Unlocked working directory.")
    run.end()
    assert capsys.readouterr().err == "Unlocked working directory.\n"
    run = Run()
    run.log("Building DAG of jobs...")
    run.log("MissingInputException: no such file", LogEvent.ERROR, logging.ERROR)
    run.end()
    assert capsys.readouterr().err == "MissingInputException: no such file\n"


def test_dry_run_lists_jobs_with_reasons_and_counts_on_stdout(capsys):
    run = Run(dryrun=True)
    run.begin(sft=1, tables=1)
    run.start(1, "sft", reason="Missing output files: checkpoints/1; Params have changed", model="llama")
    many = ", ".join(f"results/{i}" for i in range(80))
    run.start(2, "tables", reason=f"Input files updated by another job: {many}; Code has changed since last execution")
    run.end()
    assert capsys.readouterr() == (
        "sft llama  (Missing output files: checkpoints/1; Params have changed)\n"
        "tables  (Input files updated by another job; Code has changed since last execution)\n"
        "Job stats: the table\n",
        "",
    )


@pytest.mark.parametrize("option", ["verbose", "printshellcmds", "debug_dag"])
def test_snakemakes_own_output_replaces_this_one(option, capsys):
    run = Run(**{option: True})
    assert not run.handler.writes_to_stream
    run.begin(sft=1)
    run.start(1, "sft")
    run.finish(1)
    run.end()
    assert capsys.readouterr() == ("", "") and Run().handler.writes_to_stream


@pytest.mark.parametrize("quiet", [{Quietness.ALL}, {Quietness.RULES, Quietness.PROGRESS}])
def test_quiet_run_shows_no_jobs(quiet, capsys):
    run = Run(quiet=quiet)
    run.begin(sft=1)
    run.start(1, "sft")
    run.finish(1)
    run.fail(1, "sft")
    run.end()
    assert not re.search("sft|jobs? in", capsys.readouterr().err)


def test_error_in_the_handler_is_reported(capsys):
    run = Run()
    run.log("", LogEvent.JOB_FINISHED)
    assert "AttributeError" in capsys.readouterr().err


def test_names_and_reasons_are_short():
    assert job_name({"model": "llama", "method": "ppo", "replicate": "-r1", "none": ""}) == "llama ppo r1"
    assert job_name({"model": "llama", "replicate": "-r1", "order": ".2"}) == "llama r1.2"
    assert job_name(None) == job_name({}) == ""
    assert short_reason("Missing output files: a; b") == "Missing output files: a; b", "a file name with a semicolon"
