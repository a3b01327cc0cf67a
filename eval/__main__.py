"""python -m eval COMMAND: the evaluation stages."""

import sys

from salsa.runtime.command import main

COMMANDS = {
    "generate": ("eval.generation.generate", "generate a policy's answers to the benchmarks"),
    "score": ("eval.scoring.score", "score a policy's answers: reward, KL, length, gold reward"),
    "frontier": ("eval.scoring.frontier", "measure policies and the checkpoints that they kept on held-out prompts"),
    "alpha": ("eval.scoring.alpha", "measure reward and SFT loss along the line between two SFT models"),
    "greedy": ("eval.scoring.greedy", "average those SFT models that raise the average's reward"),
    "judge": ("eval.judging.judge", "compare two methods' answers pairwise, in both orders"),
    "grade": ("eval.judging.grade", "grade a policy's answers"),
    "calibrate": ("eval.archives.calibrate", "compare the configured judge with archived verdicts"),
    "render": ("eval.archives.render", "print the judge prompts for your own answers"),
    "import": ("eval.archives.importing", "import verdicts of FastChat and Arena-Hard-Auto into a ledger"),
    "table": ("eval.tables.of_ledger", "print tables of a ledger's verdicts"),
    "parse": ("eval.archives.parse", "read the verdicts in your own judge replies"),
    "published": ("eval.archives.published", "write an archive of verdicts of the mini world's former judge"),
    "gold-judge": ("eval.judging.gold_judge", "serve the mini world's judge over HTTP"),
    "download": ("eval.benchmarks.download", "download a file and check its checksum"),
    "overlap": ("eval.benchmarks.overlap", "find benchmark questions among training prompts"),
    "tables": ("eval.tables.of_grid", "make the tables"),
    "figures": ("eval.figures.of_grid", "make the figures"),
    "report": ("eval.report.page", "make the HTML report"),
    "show": ("eval.report.terminal", "print the claims, the headline table and the paths of all results"),
}

# Commands of `python -m salsa`, through an entry point of the package (pyproject.toml).
GRID = {
    "plan": ("eval.planning.plan", "estimate jobs, device hours, memory, disk space and judge calls"),
    "compare": ("eval.compare.command", "say whether two finished grids agree, and what differs between them"),
    "doctor": ("eval.checks.doctor", "check what a grid depends on: access, keys, disks, GPUs, versions"),
}

if __name__ == "__main__":
    sys.exit(main("eval", COMMANDS))
