"""python -m eval COMMAND: the measuring stages."""

import sys

from salsa.stage import main

COMMANDS = {
    "generate": ("eval.generate", "answer the benchmarks with a policy"),
    "score": ("eval.score", "score answers: reward, KL, length, gold reward"),
    "alpha": ("eval.alpha", "reward and SFT loss along the line between two SFT models"),
    "judge": ("eval.judge", "compare two methods on a benchmark, pairwise with swapped positions"),
    "grade": ("eval.grade", "grade one policy's answers on a benchmark"),
    "calibrate": ("eval.calibrate", "ask archived verdicts again of the configured judge: its card"),
    "render": ("eval.render", "print what a judge is asked about answers of one's own"),
    "import": ("eval.importing", "read the published tools' verdicts into a ledger"),
    "table": ("eval.table", "print tables of all verdicts in a ledger"),
    "parse": ("eval.parse", "read the verdicts in judges' texts of one's own"),
    "published": ("eval.published", "write verdicts of a judge of the mini world that is no longer served"),
    "gold-judge": ("eval.gold_judge", "serve the mini world's judge over HTTP"),
    "download": ("eval.download", "fetch a file of known bytes"),
    "overlap": ("eval.overlap", "find benchmark questions among training prompts"),
    "tables": ("eval.tables", "make the tables from judgments, grades and scores"),
    "figures": ("eval.figures", "draw the figures"),
    "report": ("eval.report", "write the HTML report"),
    "show": ("eval.show", "print the headline table and where everything lies"),
}

if __name__ == "__main__":
    sys.exit(main("eval", COMMANDS))
