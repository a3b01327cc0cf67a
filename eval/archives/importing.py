"""Command `import`: the published tools' verdicts into a ledger, with what was kept, repaired or dropped, and why.

A verdict is what its text says by our grammar, whatever the tool had read in it. Of a verdict that is there several
times one is kept: of equal ones the first, of others the last, as the tools' own tables do. A failed call is dropped
and counts as missing. Reading a file again changes nothing.
"""

import argparse
import json
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from eval.archives.formats import AGAIN, FORMATS, UNKNOWN, Archived, read_rows
from eval.benchmarks import Benchmark, of_protocol
from eval.benchmarks.loading import read_questions
from eval.ledger.calls import Entry, Ledger, call_key
from eval.ledger.index import Identity, IndexEntry, add_to_index
from eval.protocols.verdicts import READERS, read
from salsa.runtime.errors import UserError
from salsa.runtime.jsonl import read_jsonl
from salsa.runtime.texts import visible

EXAMPLES = 3  # lines named with each reason
NO_TEXT = "no text"
KEPT = {
    "verdict": "with a verdict",
    "tie": "with a tie",
    NO_TEXT: "with a verdict alone, its text not in the file",
    "unparsed": "without a verdict",
    "refused": "with a refusal",
}


@dataclass
class Summary:
    """What has become of a file's verdicts."""

    lines: int = 0
    kept: Counter[str] = field(default_factory=Counter)  # by outcome
    repaired: list[str] = field(default_factory=list)
    dropped: dict[str, list[int]] = field(default_factory=dict)  # lines by reason

    def drop(self, line: int, why: str) -> None:
        self.dropped.setdefault(why, []).append(line)

    def text(self, path: Path, form: str) -> str:
        parts = [f"{self.kept[name]:,} {text}" for name, text in KEPT.items() if self.kept[name]]
        said = [f"{path}: {form}, {self.lines:,} lines"]
        said += [f"kept      {self.kept.total():,}" + (f": {', '.join(parts)}" if parts else "")]
        said += [f"repaired  {len(self.repaired):,}: what the tool stored is not what the text says"]
        said += [f"          {line}" for line in self.repaired[:EXAMPLES]]
        said += ["          …"] if len(self.repaired) > EXAMPLES else []
        said += [f"dropped   {sum(map(len, self.dropped.values())):,}"]
        for why, lines in sorted(self.dropped.items(), key=lambda entry: (-len(entry[1]), entry[0])):
            numbers = list(dict.fromkeys(lines))
            where = ", ".join(map(str, numbers[:EXAMPLES])) + (", …" if len(numbers) > EXAMPLES else "")
            said.append(f"  {len(lines):>6,}  {why} (line {where})")
        return "\n".join(said)


def numbered_rows(path: Path, summary: Summary) -> list[tuple[int, dict[str, Any]]]:
    """The file's objects with their line numbers; of a torn or foreign line only the number is kept."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UserError(f"{path}: cannot read it: {error.strerror}: correct the path") from None
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        summary.lines += 1
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if isinstance(row, dict):
            rows.append((number, row))
        else:
            summary.drop(number, "not a line of JSON")
    return rows


def failed(verdict: Archived) -> bool:
    return verdict.item.label is None and read(verdict.item.protocol, verdict.text)[0] == "failed"


def without_doubles(found: list[Archived], summary: Summary) -> list[Archived]:
    """One of each identity, in the order in which each is first met."""
    kept: dict[Identity, Archived] = {}
    for verdict in found:
        identity = verdict.item.identity()
        old = kept.get(identity)
        if old is None:
            kept[identity] = verdict
        elif failed(verdict):
            summary.drop(verdict.line, "no reply, and there is one elsewhere" if not failed(old) else "no reply, again")
        elif (old.text, old.item.label) == (verdict.text, verdict.item.label):
            summary.drop(verdict.line, "the same again")
        else:
            summary.drop(old.line, "no reply, and there is one elsewhere" if failed(old) else AGAIN)
            kept[identity] = verdict
    return list(kept.values())


def repaired(verdict: Archived) -> str | None:
    """Where the tool read something else in the text than the grammar does: one line."""
    found = None if verdict.text is None else READERS[verdict.item.protocol](verdict.text)
    if verdict.item.label is not None or found == verdict.stored:
        return None
    stored, now = ("none" if value is None else value for value in (verdict.stored, found))
    return f"line {verdict.line}: stored {stored}, the text says {now}"


class Calls:
    """The archived texts as calls. A prompt may have been asked often: each of its texts is a `sample` of its own."""

    def __init__(self, ledger: Ledger, form: str):
        self.parameters = {"archive": form}
        self.samples: dict[tuple[str, str], dict[str, int]] = {}
        self.new: list[Entry] = []
        for entry in ledger.finished.values():
            if entry["parameters"] == self.parameters:
                self._texts(entry["judge"], entry["messages"])[entry["text"]] = entry["sample"]

    def _texts(self, judge: str, messages: list[dict[str, str]]) -> dict[str, int]:
        return self.samples.setdefault((judge, json.dumps(messages)), {})

    def key(self, verdict: Archived) -> str:
        """The call's key; it is new unless that text is there already."""
        assert verdict.text is not None
        judge, messages = verdict.item.judge, verdict.conversation()
        texts = self._texts(judge, messages)
        known = verdict.text in texts
        sample = texts.setdefault(verdict.text, len(texts))
        key = call_key(judge, self.parameters, messages, sample)
        if not known:
            asked = {"key": key, "judge": judge, "parameters": self.parameters, "sample": sample, "messages": messages}
            answer = {"outcome": "answered", "text": verdict.text, "date": verdict.date}
            rest = dict.fromkeys(("finish_reason", "model", "usage", "cost", "seconds", "error"))
            self.new.append({**asked, **answer, **rest})
        return key


def store(ledger: Ledger, form: str, verdicts: list[Archived], summary: Summary) -> None:
    calls = Calls(ledger, form)
    items: list[IndexEntry] = []
    for verdict in verdicts:
        if verdict.item.label is not None:
            summary.kept[NO_TEXT] += 1
            items.append(verdict.item)
        elif failed(verdict):
            summary.drop(verdict.line, "no reply: counts as missing")
            items.append(verdict.item.model_copy(update={"missing": "failed"}))
        else:
            summary.kept[read(verdict.item.protocol, verdict.text)[0]] += 1
            summary.repaired += [line for line in [repaired(verdict)] if line]
            items.append(verdict.item.model_copy(update={"call": calls.key(verdict)}))
    # The calls first: an item never names a call that is not there.
    ledger.add(*calls.new)
    add_to_index(ledger.folder, items)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", required=True, choices=FORMATS, help="whose file it is (docs/formats.md)")
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument("--ledger", type=Path, required=True, help="folder to keep the verdicts in; may hold others")
    parser.add_argument("--judge", default=UNKNOWN, metavar="NAME", help="who judged, where the file does not say")
    parser.add_argument(
        "--questions", type=Path, metavar="Q.jsonl", help="for categories; those of MT-Bench's own questions are known"
    )


def with_categories(found: list[Archived], path: Path, benchmark: Benchmark) -> list[Archived]:
    questions = read_questions(benchmark, read_jsonl(path), {}, str(path))
    category = {question.question_id: question.category for question in questions}
    return [
        replace(verdict, item=verdict.item.model_copy(update={"category": category.get(verdict.item.question_id)}))
        for verdict in found
    ]


def run(arguments: argparse.Namespace) -> None:
    summary, form = Summary(), arguments.format
    rows = numbered_rows(arguments.file, summary)
    found, dropped = read_rows(form, rows)
    if not found:
        why = f"line {dropped[0][0]}: {dropped[0][1]}" if dropped else "no line of JSON in it"
        raise UserError(f"{arguments.file}: no verdict in the form of {form} ({why}): name its own --format")
    for line, why in dropped:
        summary.drop(line, why)
    if arguments.questions:
        found = with_categories(found, arguments.questions, of_protocol(found[0].item.protocol))
    unnamed = {"judge": arguments.judge}
    found = [v if v.item.judge != UNKNOWN else replace(v, item=v.item.model_copy(update=unnamed)) for v in found]
    verdicts = without_doubles(found, summary)
    with Ledger(arguments.ledger) as ledger:
        store(ledger, form, verdicts, summary)
    print(visible(summary.text(arguments.file, form)))
