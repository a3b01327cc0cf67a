"""Data sets as token ids, made once for all jobs that use them.

A prepared set is a folder named by what it is made of: the rows (a file's content, or a hub data set's revision), the
tokenizer with its chat template, the length limit and this code. The first job that needs it makes it, the others
wait for it and map it into memory. What could not be used is counted:

rows        of the source           used      of them
empty       a turn says nothing     equal     both answers are the same
tied        both scores are the same
too_long    more tokens than the limit (of a demonstration: no word of the assistant is within it)
malformed   not the schema: a turn has no role, or no text
roles       a turn of an unknown role; no turn of the user, or not the assistant's where it has to end with one
mismatched  chosen and rejected do not answer the same dialogue
refused     the chat template does not write it
cut         used demonstrations that go on beyond the limit
tokens      of what is used (a pair's: of both dialogues)

The last four reasons to leave a row out are faults of the data: a set with a larger share of them than its source's
`unusable` ends the run.
"""

import fcntl
import hashlib
import json
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from datasets import Dataset
from jinja2.exceptions import SecurityError, TemplateError, TemplateSyntaxError
from transformers import PreTrainedTokenizerBase

import salsa.data.rows
from salsa.checkpoints.loading import render_all
from salsa.data.rows import (
    CHOICES,
    FAULTS,
    Row,
    Unusable,
    conversation,
    demonstration,
    each,
    numbered_rows,
    preference,
    source_name,
)
from salsa.data.training_sets import DataSet
from salsa.runtime.errors import UserError
from salsa.runtime.log import log, steps
from salsa.runtime.outputs import output_folder
from salsa.runtime.provenance import Run

CHUNK = 1000
IGNORED = -100  # the label that transformers' loss leaves out
IDS = pa.list_(pa.int32())
COLUMNS = {
    "demonstrations": pa.schema([("input_ids", IDS), ("labels", IDS), ("length", pa.int32())]),
    "preferences": pa.schema(
        [
            ("chosen_ids", IDS),
            ("rejected_ids", IDS),
            ("prompt_length", pa.int32()),
            ("length", pa.int32()),
            ("gold_chosen", pa.float64()),
            ("gold_rejected", pa.float64()),
        ]
    ),
    "prompts": pa.schema([("messages", pa.string()), ("ids", IDS), ("length", pa.int32())]),
}
TOKENS = ("input_ids", "chosen_ids", "rejected_ids", "ids")
EXAMPLES = 3  # of rows at fault, in a message
Counts = Counter[str]
Made = Iterator[Row | Unusable]  # one of each row, in the rows' order


class Prepared(NamedTuple):
    """The set, and the counts of the module's docstring."""

    data: Dataset
    counts: dict[str, int]


def demonstrations(rows: list[Row], tokenizer: PreTrainedTokenizerBase, limit: int) -> Made:
    """Whole dialogues with labels at the assistant's tokens alone, cut at the limit."""
    if "{% generation" not in str(tokenizer.chat_template).replace("{%-", "{%"):
        raise UserError(
            f"{tokenizer.name_or_path}: its chat template marks no assistant tokens: "
            "put {% generation %} … {% endgeneration %} round them"
        )
    talks = each(demonstration, rows)
    kept = [talk for talk in talks if not isinstance(talk, Unusable)]
    found: Any = {"input_ids": (), "assistant_masks": ()}
    if kept:
        found = tokenizer.apply_chat_template(kept, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
    tokens = zip(found["input_ids"], found["assistant_masks"], strict=True)
    for talk in talks:
        if isinstance(talk, Unusable):
            yield talk
            continue
        ids, mask = next(tokens)
        labels = [token if marked else IGNORED for token, marked in zip(ids, mask, strict=True)][:limit]
        if all(label == IGNORED for label in labels):
            yield Unusable("too_long", f"no word of the assistant within {limit} tokens")
            continue
        yield {"input_ids": ids[:limit], "labels": labels, "length": len(labels), "cut": len(ids) > limit}


def preferences(rows: list[Row], tokenizer: PreTrainedTokenizerBase, limit: int) -> Made:
    """Pairs of whole dialogues; `prompt_length` tokens are common to both and written before the answer."""
    pairs = each(preference, rows)
    kept = [pair for pair in pairs if not isinstance(pair, Unusable)]
    prompts = render_all(tokenizer, [chosen[:-1] for chosen, _ in kept], add_generation_prompt=True)
    sides = (render_all(tokenizer, side) for side in ([pair[0] for pair in kept], [pair[1] for pair in kept]))
    tokens = zip(prompts, *sides, strict=True)
    for row, pair in zip(rows, pairs, strict=True):
        if isinstance(pair, Unusable):
            yield pair
            continue
        prompt, chosen, rejected = next(tokens)
        if chosen[: len(prompt)] != prompt or rejected[: len(prompt)] != prompt:
            raise UserError(
                f"{tokenizer.name_or_path}: its chat template writes a prompt otherwise where an answer follows: "
                "mend it"
            )
        longest = max(len(chosen), len(rejected))
        if longest > limit:
            yield Unusable("too_long", f"{longest} tokens, more than {limit}")
            continue
        gold = {key: row.get(key) for key in ("gold_chosen", "gold_rejected")}
        yield {"chosen_ids": chosen, "rejected_ids": rejected, "prompt_length": len(prompt), "length": longest, **gold}


def prompts(rows: list[Row], tokenizer: PreTrainedTokenizerBase, limit: int) -> Made:
    """Dialogues up to the user's last turn, with what the template writes before an answer."""
    talks = each(conversation, rows)
    kept = [talk for talk in talks if not isinstance(talk, Unusable)]
    tokens = iter(render_all(tokenizer, kept, add_generation_prompt=True))
    for talk in talks:
        if isinstance(talk, Unusable):
            yield talk
            continue
        ids = next(tokens)
        if len(ids) > limit:
            yield Unusable("too_long", f"{len(ids)} tokens, more than {limit}")
            continue
        yield {"messages": json.dumps(talk, ensure_ascii=False), "ids": ids, "length": len(ids)}


KINDS: dict[str, Callable[[list[Row], PreTrainedTokenizerBase, int], Made]] = {
    "demonstrations": demonstrations,
    "preferences": preferences,
    "prompts": prompts,
}


def written(kind: str, rows: list[Row], tokenizer: PreTrainedTokenizerBase, limit: int) -> list[Row | Unusable]:
    """The rows as token ids. A row that the chat template raises an error for is refused, and no other with it."""
    try:
        return list(KINDS[kind](rows, tokenizer, limit))
    except (SecurityError, TemplateSyntaxError) as error:
        raise UserError(f"{tokenizer.name_or_path}: its chat template cannot be used: {error}: mend it") from None
    except TypeError as error:
        # Jinja lets Python's errors in a template through, and has no loader where one includes a file.
        if traceback.extract_tb(error.__traceback__)[-1].filename != "<template>":
            raise
        raise UserError(f"{tokenizer.name_or_path}: its chat template cannot be used: {error}: mend it") from None
    except TemplateError as error:
        if len(rows) == 1:
            return [Unusable("refused", f"the chat template refuses it: {error}")]
        return [found for row in rows for found in written(kind, [row], tokenizer, limit)]


def tokenizer_id(tokenizer: PreTrainedTokenizerBase) -> str:
    """A digest of all that decides on a dialogue's token ids."""
    parts = [tokenizer.backend_tokenizer.to_str(), tokenizer.chat_template, tokenizer.special_tokens_map]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _code_id() -> str:
    """A digest of the code that prepares, and of the library that tokenises."""
    code = b"".join(Path(str(file)).read_bytes() for file in (__file__, salsa.data.rows.__file__))
    versions = [metadata.version(name) for name in ("transformers", "tokenizers")]
    return hashlib.sha256(code + json.dumps(versions).encode()).hexdigest()


def provenance(wanted: DataSet, tokenizer: PreTrainedTokenizerBase) -> Run:
    """The record of a prepared set; its id is the set's name. Where a file lies is not part of it, what is in it is."""
    settings = {
        **wanted.model_dump(exclude={"source", "seed"}),
        "source": wanted.source.model_dump(exclude={"path", "unusable"}, exclude_none=True),
        "tokenizer": tokenizer_id(tokenizer),
        "code": _code_id(),
    }
    inputs = {"source": Path(wanted.source.path)} if wanted.source.path is not None else {}
    return Run("prepare", settings, inputs, {"seed": wanted.seed} if wanted.source.limit is not None else {})


def prepare(name: str, wanted: DataSet, tokenizer: PreTrainedTokenizerBase, cache: Path) -> Prepared:
    """The set `name` of the config, from the cache or made now."""
    record = provenance(wanted, tokenizer)
    folder = cache / f"{wanted.kind}-{record.id()}"
    cache.mkdir(parents=True, exist_ok=True)
    # Held while it is made, so that the processes and jobs that want it too wait instead of making it again.
    with (cache / f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            _make(name, wanted, tokenizer, folder, record)
    counts, examples = json.loads((folder / "counts.json").read_text()).values()
    _check(name, wanted, counts, examples)
    # Without the file's name: what the trainers compute of a set would be kept beside it otherwise, under a name that
    # does not say all it depends on.
    return Prepared(Dataset(pa.ipc.open_stream(pa.memory_map(str(folder / "data.arrow"))).read_all()), counts)


def _check(name: str, wanted: DataSet, counts: dict[str, int], examples: list[str]) -> None:
    """A UserError where too many rows are at fault, or none is left."""
    where, faults = source_name(wanted.source), sum(counts[reason] for reason in FAULTS)
    rows, first = counts["rows"], "; ".join(examples)
    if faults > wanted.source.unusable * rows:
        raise UserError(
            f"{name}: {where}: {faults} of {rows} rows cannot be used, more than {wanted.source.unusable:.2%} "
            f"({first}): mend them, or raise the source's unusable"
        )
    if not counts["used"]:
        why = ", ".join(f"{reason} {counts[reason]}" for reason in (*CHOICES, *FAULTS) if counts[reason])
        raise UserError(
            f"{name}: of {rows} rows in {where} none can be used ({why}; limit {wanted.max_length} tokens): take other "
            "data or raise the limit"
        )


def _make(name: str, wanted: DataSet, tokenizer: PreTrainedTokenizerBase, folder: Path, record: Run) -> None:
    rows = numbered_rows(wanted.source, wanted.seed)
    counts: Counts = Counter(dict.fromkeys(("rows", "used", *CHOICES, *FAULTS, "cut", "tokens"), 0))
    examples: list[str] = []
    schema = COLUMNS[wanted.kind]
    columns = [column for column in TOKENS if column in schema.names]
    with output_folder(folder, record) as made:
        with pa.OSFile(str(made / "data.arrow"), "wb") as file, pa.ipc.new_stream(file, schema) as stream:
            begins = range(0, len(rows), CHUNK)
            for begin in steps(begins, f"prepare {name}", lambda: {"used": counts["used"]}):
                numbers, part = zip(*rows[begin : begin + CHUNK], strict=True)
                found = written(wanted.kind, list(part), tokenizer, wanted.max_length)
                used = [row for row in found if not isinstance(row, Unusable)]
                left_out = [(n, row) for n, row in zip(numbers, found, strict=True) if isinstance(row, Unusable)]
                counts.update(_counted(used, columns), rows=len(part))
                counts.update(unusable.reason for _, unusable in left_out)
                examples += [f"row {n}: {unusable}" for n, unusable in left_out if unusable.reason in FAULTS]
                stream.write_table(pa.Table.from_pylist(used, schema=schema))
        examples = examples[:EXAMPLES]
        record.extra = {"counts": dict(counts), "examples": examples}
        (made / "counts.json").write_text(json.dumps(record.extra, indent=2, ensure_ascii=False) + "\n")
    log.info("%s: %s", name, ", ".join(f"{key} {value}" for key, value in counts.items() if value))
    if examples:
        faults = sum(counts[reason] for reason in FAULTS)
        log.warning(
            "%s: %d of %d rows cannot be used and are left out (%s)", name, faults, len(rows), "; ".join(examples)
        )


def _counted(used: list[Row], columns: Iterable[str]) -> dict[str, int]:
    """Rows, rows that were cut, and tokens."""
    return {
        "used": len(used),
        "cut": sum(row.get("cut", False) for row in used),
        "tokens": sum(len(row[column]) for row in used for column in columns),
    }
