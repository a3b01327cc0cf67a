"""Command `import`: import verdicts of other tools into a ledger, and report what was kept, repaired or dropped.

Verdicts are read from the replies by our grammar, whatever the tool had stored. Of repeated verdicts one is kept: the
first of equal ones, else the last, as in the tools' own tables. Failed calls are dropped and count as missing.
Importing a file again changes nothing.
"""

import argparse
import json
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from eval.archives.formats import AGAIN, UNKNOWN, Archived, read_rows
from eval.benchmarks import Benchmark, of_protocol
from eval.benchmarks.loading import read_questions
from eval.ledger.calls import Entry, Ledger, call_key
from eval.ledger.index import Identity, IndexEntry, add_to_index
from eval.protocols.verdicts import READERS, read
from salsa.runtime.errors import UserError
from salsa.runtime.jsonl import read_jsonl
from salsa.runtime.texts import visible

EXAMPLES = 3  # lines quoted for each reason
NO_TEXT = "no text"
KEPT = {
    "verdict": "with a verdict",
    "tie": "with a tie",
    NO_TEXT: "with a verdict but no text",
    "unparsed": "without a verdict",
    "refused": "with a refusal",
}


@dataclass
class Summary:
    """Counts of kept, repaired and dropped verdicts of a file."""

    lines: int = 0
    kept: Counter[str] = field(default_factory=Counter)  # by outcome
    repaired: list[str] = field(default_factory=list)
    dropped: dict[str, list[int]] = field(default_factory=dict)  # lines by reason

    def drop(self, line: int, why: str) -> None:
        """Record a dropped verdict."""
        self.dropped.setdefault(why, []).append(line)

    def text(self, path: Path, form: str) -> str:
        """The summary as text."""
        parts = [f"{self.kept[name]:,} {text}" for name, text in KEPT.items() if self.kept[name]]
        summary = [f"{path}: {form}, {self.lines:,} lines"]
        summary += [f"kept      {self.kept.total():,}" + (f": {', '.join(parts)}" if parts else "")]
        summary += [f"repaired  {len(self.repaired):,}: the tool's stored verdict differs from the text"]
        summary += [f"          {line}" for line in self.repaired[:EXAMPLES]]
        summary += ["          …"] if len(self.repaired) > EXAMPLES else []
        summary += [f"dropped   {sum(map(len, self.dropped.values())):,}"]
        for why, lines in sorted(self.dropped.items(), key=lambda entry: (-len(entry[1]), entry[0])):
            numbers = list(dict.fromkeys(lines))
            where = ", ".join(map(str, numbers[:EXAMPLES])) + (", …" if len(numbers) > EXAMPLES else "")
            summary.append(f"  {len(lines):>6,}  {why} (line {where})")
        return "\n".join(summary)


def numbered_rows(path: Path, summary: Summary) -> list[tuple[int, dict[str, Any]]]:
    """The JSON objects of the file with their line numbers; other lines are counted as dropped."""
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
            summary.drop(number, "not JSON")
    return rows


def failed(verdict: Archived) -> bool:
    """Whether the call got no reply."""
    return verdict.item.label is None and read(verdict.item.protocol, verdict.text)[0] == "failed"


def without_duplicates(verdicts: list[Archived], summary: Summary) -> list[Archived]:
    """Keep one verdict per identity, in order of first occurrence."""
    kept: dict[Identity, Archived] = {}
    for verdict in verdicts:
        identity = verdict.item.identity()
        old = kept.get(identity)
        if old is None:
            kept[identity] = verdict
        elif failed(verdict):
            summary.drop(verdict.line, "no reply, but another line has one" if not failed(old) else "no reply, again")
        elif (old.text, old.item.label) == (verdict.text, verdict.item.label):
            summary.drop(verdict.line, "duplicate")
        else:
            summary.drop(old.line, "no reply, but another line has one" if failed(old) else AGAIN)
            kept[identity] = verdict
    return list(kept.values())


def repaired(verdict: Archived) -> str | None:
    """One line if the tool's stored verdict differs from what our grammar reads in the text."""
    value = None if verdict.text is None else READERS[verdict.item.protocol](verdict.text)
    if verdict.item.label is not None or value == verdict.stored:
        return None
    stored, now = ("none" if value is None else value for value in (verdict.stored, value))
    return f"line {verdict.line}: stored {stored}, the text says {now}"


class Calls:
    """Archived replies as ledger calls. Different replies to one prompt become different samples."""

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
        """Key of the call; a new call is added unless this reply is stored already."""
        assert verdict.text is not None
        judge, messages = verdict.item.judge, verdict.conversation()
        texts = self._texts(judge, messages)
        known = verdict.text in texts
        sample = texts.setdefault(verdict.text, len(texts))
        key = call_key(judge, self.parameters, messages, sample)
        if not known:
            request = {"key": key, "judge": judge, "parameters": self.parameters, "sample": sample}
            reply = {"messages": messages, "outcome": "answered", "text": verdict.text, "date": verdict.date}
            unknown = dict.fromkeys(("finish_reason", "model", "usage", "cost", "seconds", "error"))
            self.new.append({**request, **reply, **unknown})
        return key


def store(ledger: Ledger, form: str, verdicts: list[Archived], summary: Summary) -> None:
    """Store verdicts in the ledger and its index."""
    calls = Calls(ledger, form)
    entries: list[IndexEntry] = []
    for verdict in verdicts:
        if verdict.item.label is not None:
            summary.kept[NO_TEXT] += 1
            entries.append(verdict.item)
        elif failed(verdict):
            summary.drop(verdict.line, "no reply: counts as missing")
            entries.append(verdict.item.model_copy(update={"missing": "failed"}))
        else:
            summary.kept[read(verdict.item.protocol, verdict.text)[0]] += 1
            summary.repaired += [line for line in [repaired(verdict)] if line]
            entries.append(verdict.item.model_copy(update={"call": calls.key(verdict)}))
    # Calls first, so that the index never names a missing call.
    ledger.add(*calls.new)
    add_to_index(ledger.folder, entries)


def with_categories(verdicts: list[Archived], path: Path, benchmark: Benchmark) -> list[Archived]:
    """Add categories from a question file."""
    questions = read_questions(benchmark, read_jsonl(path), {}, str(path))
    category = {question.question_id: question.category for question in questions}
    return [
        replace(verdict, item=verdict.item.model_copy(update={"category": category.get(verdict.item.question_id)}))
        for verdict in verdicts
    ]


def run(arguments: argparse.Namespace) -> None:
    summary, form = Summary(), arguments.format
    rows = numbered_rows(arguments.file, summary)
    verdicts, dropped = read_rows(form, rows)
    if not verdicts:
        why = f"line {dropped[0][0]}: {dropped[0][1]}" if dropped else "no JSON object in it"
        raise UserError(f"{arguments.file}: no verdict in the format {form} ({why}): give the right --format")
    for line, why in dropped:
        summary.drop(line, why)
    if arguments.questions:
        verdicts = with_categories(verdicts, arguments.questions, of_protocol(verdicts[0].item.protocol))
    judge = {"judge": arguments.judge}
    verdicts = [v if v.item.judge != UNKNOWN else replace(v, item=v.item.model_copy(update=judge)) for v in verdicts]
    with Ledger(arguments.ledger) as ledger:
        store(ledger, form, without_duplicates(verdicts, summary), summary)
    print(visible(summary.text(arguments.file, form)))
