"""python -m eval COMMAND: the measuring stages."""

import sys

from salsa.runtime.command import main

COMMANDS = {
    "generate": ("eval.generation.generate", "answer the benchmarks with a policy"),
    "score": ("eval.scoring.score", "score answers: reward, KL, length, gold reward"),
    "alpha": ("eval.scoring.alpha", "reward and SFT loss along the line between two SFT models"),
    "judge": ("eval.judging.judge", "compare two methods on a benchmark, pairwise with swapped positions"),
    "grade": ("eval.judging.grade", "grade one policy's answers on a benchmark"),
    "calibrate": ("eval.archives.calibrate", "ask archived verdicts again of the configured judge: its card"),
    "render": ("eval.archives.render", "print what a judge is asked about answers of one's own"),
    "import": ("eval.archives.importing", "read the published tools' verdicts into a ledger"),
    "table": ("eval.tables.of_ledger", "print tables of all verdicts in a ledger"),
    "parse": ("eval.archives.parse", "read the verdicts in judges' texts of one's own"),
    "published": ("eval.archives.published", "write verdicts of a judge of the mini world that is no longer served"),
    "gold-judge": ("eval.judging.gold_judge", "serve the mini world's judge over HTTP"),
    "download": ("eval.benchmarks.download", "fetch a file of known bytes"),
    "overlap": ("eval.benchmarks.overlap", "find benchmark questions among training prompts"),
    "tables": ("eval.tables.of_grid", "make the tables from judgments, grades and scores"),
    "figures": ("eval.report.figures", "draw the figures"),
    "report": ("eval.report.page", "write the HTML report"),
    "show": ("eval.report.terminal", "print the headline table and where everything lies"),
}

# Commands of `python -m salsa`, by an entry point of the package (pyproject.toml).
GRID = {
    "plan": ("eval.planning.plan", "say what a grid will take: jobs, hours, memory, disk, judge calls"),
    "doctor": ("eval.checks.doctor", "look at all that a grid depends on: access, keys, disks, GPUs, versions"),
}

if __name__ == "__main__":
    sys.exit(main("eval", COMMANDS))
