"""What the docs name exists, and their commands run."""

import ast
import importlib
import re
from pathlib import Path

import pytest

from eval.commands.main import program
from salsa.runtime.jsonl import write_jsonl
from tests.documented import NEEDS, PAGES, ROOT, Block, blocks, checkout, in_the_text, run
from tests.eval.archive_case import rated

# Messages of other programs, and words that are none.
FOREIGN = {
    "CUDA out of memory",
    "revision: String should match pattern …",
    "sbatch: Requested node configuration is not available",
}


def test_tests_named_in_the_docs_exist():
    named = {
        found
        for page in ROOT.glob("docs/*.md")
        for found in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page.read_text())
    }
    assert len(named) > 15
    missing = [f"{file}::{name}" for file, name in named if f"def {name}(" not in (ROOT / file).read_text()]
    assert not missing


def messages() -> list[str]:
    """The project's strings; the filled-in parts of f-strings are an ellipsis."""
    found = []
    for path in [*ROOT.glob("salsa/**/*.py"), *ROOT.glob("eval/**/*.py"), *ROOT.glob("scripts/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found + [path.read_text() for path in ROOT.glob("rules/*.smk")]


def test_messages_quoted_in_troubleshooting_are_the_programs():
    rows = re.findall(r"^\| (.+?) \|", (ROOT / "docs/troubleshooting.md").read_text(), re.MULTILINE)
    quoted = {phrase for row in rows for phrase in re.findall(r"`([^`]+)`", row) if phrase.count(" ") > 1} - FOREIGN
    assert len(quoted) >= 12
    known = messages()
    unknown = {
        phrase
        for phrase in quoted
        for part in phrase.removeprefix("error: ").split("…")
        if not any(part.strip() in message for message in known)
    }
    assert not unknown


def test_blocks_that_are_not_run_need_something_special():
    marked = [block for page in PAGES for block in blocks(page) if block.needs]
    assert marked
    assert not [f"{block.page}:{block.line}" for block in marked if not NEEDS.match(block.text)]


# Files that the pages' commands read, of which the pages say where they are from.
FIRST = {"name": "pair-v2", "system_prompt": "Judge.", "prompt_template": "{question} {answer_a} {answer_b}"}
BOTH = "{question_1} {answer_a_1} {answer_b_1} {question_2} {answer_a_2} {answer_b_2}"
ANSWERS = [{"question_id": 81, "choices": [{"index": 0, "turns": ["one", "two"]}]}]
READ = {
    "gpt-4_single.jsonl": [rated(question, 7, turn=turn) for question in (81, 82) for turn in (1, 2)],
    "question.jsonl": [{"question_id": 81, "category": "writing", "turns": ["first", "second"]}],
    "judge_prompts.jsonl": [FIRST, {**FIRST, "name": "pair-v2-multi-turn", "prompt_template": BOTH}],
    "gpt-4.jsonl": ANSWERS,
    "a.jsonl": ANSWERS,
    "b.jsonl": ANSWERS,
}


def runnable(page: Path) -> list[Block]:
    """Blocks that need no finished grid; tests/workflow/test_workflow.py runs the others."""
    return [block for block in blocks(page) if not block.needs and not block.of_a_grid]


@pytest.mark.parametrize("page", filter(runnable, PAGES), ids=lambda page: page.stem)
def test_the_commands_of_a_page_run(page, tmp_path):
    checkout(tmp_path)
    for name, rows in READ.items():
        write_jsonl(tmp_path / name, rows)
    for block in blocks(page, "yaml"):
        if named := re.match(r"# (\S+\.yaml)\n", block.text):
            (tmp_path / named[1]).write_text(block.text)
    for block in runnable(page):
        said = run(block, tmp_path)
        for jobs in re.findall(r"^snakemake .*# .*?\b(\d+) jobs", block.text, re.MULTILINE):
            assert re.search(rf"^total +{jobs}$", said, re.MULTILINE), f"{block.page}:{block.line}: {jobs} jobs\n{said}"


def test_snakemake_commands_in_running_text_run(tmp_path):
    commands = {block.text: block for page in PAGES for block in in_the_text(page)}
    assert len(commands) > 9
    checkout(tmp_path)
    (tmp_path / "mine.yaml").write_text("rl_seeds: [1]\n")
    for block in commands.values():
        run(block, tmp_path)


def test_what_the_text_names_exists():
    """Targets of make, commands of all programs, files of the repository, and linked pages."""
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    commands = {
        f"{package} {name}"
        for package in ("salsa", "eval")
        for name in importlib.import_module(f"{package}.__main__").COMMANDS
    }
    kinds = (
        (r"`make ([\w-]+)", lambda page, name: name in targets),
        (r"python -m ((?:salsa|eval) [a-z][\w-]*)", lambda page, name: name in commands),
        (r"`salsa ([a-z]\w+)", lambda page, name: name in program.commands),
        (
            r"(?<![\w/])((?:benchmarks|config|profiles|tests|salsa|eval|scripts)/[\w./-]+\.\w+)",
            lambda page, name: (ROOT / name).exists(),
        ),
        # GitHub's own pages of the repository are linked as ../../actions/….
        (r"\]\((?!\.\./\.\./)([^)#:]+)(?:#[^)]*)?\)", lambda page, name: (page.parent / name).exists()),
    )
    for pattern, exists in kinds:
        named = [(page, name) for page in PAGES for name in re.findall(pattern, page.read_text())]
        assert len(named) > 9, pattern
        assert not [(page.name, name) for page, name in named if not exists(page, name)]
