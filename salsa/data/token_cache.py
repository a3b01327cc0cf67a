"""Tokenized data sets, stored once and shared by all jobs.

A set is a folder named after a hash of its rows (a file's content, or a hub revision), the tokenizer with its chat
template, the length limit and this code. The first job that needs a set makes it; others wait and then map it into
memory. counts.json has these counts:

rows        rows in the source
used        rows in the set
empty       left out: a turn is empty
equal       left out: chosen and rejected are the same
tied        left out: both have the same score
too_long    left out: more tokens than the limit (demonstrations: no assistant token within it)
malformed   left out, invalid: wrong schema, a turn without role or text
roles       left out, invalid: unknown role, no user turn, or not the assistant's turn at the end
mismatched  left out, invalid: chosen and rejected answer different dialogues
refused     left out, invalid: the chat template raises an error
cut         used demonstrations that were truncated at the limit
tokens      tokens in the set (of both dialogues of a pair)

If the share of invalid rows exceeds the source's `unusable`, the run ends.
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
    convert_rows,
    demonstration,
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
EXAMPLES = 3  # invalid rows quoted in a message
Counts = Counter[str]
Tokenized = Iterator[Row | Unusable]  # one result per row, in row order


class Prepared(NamedTuple):
    """A tokenized set, and the counts described in the module's docstring."""

    data: Dataset
    counts: dict[str, int]


def demonstrations(rows: list[Row], tokenizer: PreTrainedTokenizerBase, limit: int) -> Tokenized:
    """Tokenize demonstrations, truncated at `limit`. Labels are IGNORED except at assistant tokens."""
    if "{% generation" not in str(tokenizer.chat_template).replace("{%-", "{%"):
        raise UserError(
            f"{tokenizer.name_or_path}: its chat template does not mark assistant tokens: "
            "put {% generation %} … {% endgeneration %} around them"
        )
    dialogues = convert_rows(demonstration, rows)
    usable = [dialogue for dialogue in dialogues if not isinstance(dialogue, Unusable)]
    encoded: Any = {"input_ids": (), "assistant_masks": ()}
    if usable:
        encoded = tokenizer.apply_chat_template(
            usable, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
    tokens = zip(encoded["input_ids"], encoded["assistant_masks"], strict=True)
    for dialogue in dialogues:
        if isinstance(dialogue, Unusable):
            yield dialogue
            continue
        ids, mask = next(tokens)
        labels = [token if marked else IGNORED for token, marked in zip(ids, mask, strict=True)][:limit]
        if all(label == IGNORED for label in labels):
            yield Unusable("too_long", f"no assistant token within the first {limit}")
            continue
        yield {"input_ids": ids[:limit], "labels": labels, "length": len(labels), "cut": len(ids) > limit}


def preferences(rows: list[Row], tokenizer: PreTrainedTokenizerBase, limit: int) -> Tokenized:
    """Tokenize preference pairs. The first `prompt_length` tokens, the prompt, are the same in both dialogues."""
    pairs = convert_rows(preference, rows)
    usable = [pair for pair in pairs if not isinstance(pair, Unusable)]
    prompts = render_all(tokenizer, [chosen[:-1] for chosen, _ in usable], add_generation_prompt=True)
    sides = (render_all(tokenizer, side) for side in ([pair[0] for pair in usable], [pair[1] for pair in usable]))
    tokens = zip(prompts, *sides, strict=True)
    for row, pair in zip(rows, pairs, strict=True):
        if isinstance(pair, Unusable):
            yield pair
            continue
        prompt, chosen, rejected = next(tokens)
        if chosen[: len(prompt)] != prompt or rejected[: len(prompt)] != prompt:
            raise UserError(
                f"{tokenizer.name_or_path}: its chat template renders a prompt differently when an answer follows: "
                "fix it"
            )
        longest = max(len(chosen), len(rejected))
        if longest > limit:
            yield Unusable("too_long", f"{longest} tokens, more than {limit}")
            continue
        gold = {key: row.get(key) for key in ("gold_chosen", "gold_rejected")}
        yield {"chosen_ids": chosen, "rejected_ids": rejected, "prompt_length": len(prompt), "length": longest, **gold}


def prompts(rows: list[Row], tokenizer: PreTrainedTokenizerBase, limit: int) -> Tokenized:
    """Tokenize prompts: dialogues up to the last user turn, followed by the template's generation prompt."""
    dialogues = convert_rows(conversation, rows)
    usable = [dialogue for dialogue in dialogues if not isinstance(dialogue, Unusable)]
    tokens = iter(render_all(tokenizer, usable, add_generation_prompt=True))
    for dialogue in dialogues:
        if isinstance(dialogue, Unusable):
            yield dialogue
            continue
        ids = next(tokens)
        if len(ids) > limit:
            yield Unusable("too_long", f"{len(ids)} tokens, more than {limit}")
            continue
        yield {"messages": json.dumps(dialogue, ensure_ascii=False), "ids": ids, "length": len(ids)}


KINDS: dict[str, Callable[[list[Row], PreTrainedTokenizerBase, int], Tokenized]] = {
    "demonstrations": demonstrations,
    "preferences": preferences,
    "prompts": prompts,
}


def tokenize(kind: str, rows: list[Row], tokenizer: PreTrainedTokenizerBase, limit: int) -> list[Row | Unusable]:
    """Tokenize rows of one kind. A row on which the chat template raises an error becomes an Unusable (`refused`)."""
    try:
        return list(KINDS[kind](rows, tokenizer, limit))
    except (SecurityError, TemplateSyntaxError) as error:
        raise UserError(f"{tokenizer.name_or_path}: its chat template cannot be used: {error}: fix it") from None
    except TypeError as error:
        # Jinja passes Python errors of a template through; a template that includes a file has no loader.
        if traceback.extract_tb(error.__traceback__)[-1].filename != "<template>":
            raise
        raise UserError(f"{tokenizer.name_or_path}: its chat template cannot be used: {error}: fix it") from None
    except TemplateError as error:
        if len(rows) == 1:
            return [Unusable("refused", f"the chat template refuses it: {error}")]
        return [result for row in rows for result in tokenize(kind, [row], tokenizer, limit)]


def tokenizer_id(tokenizer: PreTrainedTokenizerBase) -> str:
    """A hash of everything that determines the token ids of a dialogue."""
    parts = [tokenizer.backend_tokenizer.to_str(), tokenizer.chat_template, tokenizer.special_tokens_map]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _code_id() -> str:
    """A hash of the code here and in rows.py, and of the versions of the tokenizer libraries."""
    code = b"".join(Path(str(file)).read_bytes() for file in (__file__, salsa.data.rows.__file__))
    versions = [metadata.version(name) for name in ("transformers", "tokenizers")]
    return hashlib.sha256(code + json.dumps(versions).encode()).hexdigest()


def provenance(wanted: DataSet, tokenizer: PreTrainedTokenizerBase) -> Run:
    """Provenance of a set; its id names the set's folder. It depends on a file's content, not on its path."""
    settings = {
        **wanted.model_dump(exclude={"source", "seed"}),
        "source": wanted.source.model_dump(exclude={"path", "unusable"}, exclude_none=True),
        "tokenizer": tokenizer_id(tokenizer),
        "code": _code_id(),
    }
    inputs = {"source": Path(wanted.source.path)} if wanted.source.path is not None else {}
    return Run("prepare", settings, inputs, {"seed": wanted.seed} if wanted.source.limit is not None else {})


def prepare(name: str, wanted: DataSet, tokenizer: PreTrainedTokenizerBase, cache: Path) -> Prepared:
    """Return the set from the cache, making it if needed. `name` is its name in messages."""
    record = provenance(wanted, tokenizer)
    folder = cache / f"{wanted.kind}-{record.id()}"
    cache.mkdir(parents=True, exist_ok=True)
    # Other processes and jobs that need the set wait for this lock instead of making it again.
    with (cache / f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            _make(name, wanted, tokenizer, folder, record)
    counts, examples = json.loads((folder / "counts.json").read_text()).values()
    _check(name, wanted, counts, examples)
    # Opened without the file's name: `datasets` would otherwise cache derived sets beside the file, under a name that
    # omits part of what they depend on.
    return Prepared(Dataset(pa.ipc.open_stream(pa.memory_map(str(folder / "data.arrow"))).read_all()), counts)


def _check(name: str, wanted: DataSet, counts: dict[str, int], examples: list[str]) -> None:
    """Raise a UserError if too many rows are invalid, or none is usable."""
    where, faults = source_name(wanted.source), sum(counts[reason] for reason in FAULTS)
    rows, first = counts["rows"], "; ".join(examples)
    if faults > wanted.source.unusable * rows:
        raise UserError(
            f"{name}: {where}: {faults} of {rows} rows cannot be used, more than {wanted.source.unusable:.2%} "
            f"({first}): fix them, or raise the source's unusable"
        )
    if not counts["used"]:
        why = ", ".join(f"{reason} {counts[reason]}" for reason in (*CHOICES, *FAULTS) if counts[reason])
        raise UserError(
            f"{name}: none of {rows} rows in {where} can be used ({why}; limit {wanted.max_length} tokens): use other "
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
                results = tokenize(wanted.kind, list(part), tokenizer, wanted.max_length)
                used = [row for row in results if not isinstance(row, Unusable)]
                left_out = [(n, row) for n, row in zip(numbers, results, strict=True) if isinstance(row, Unusable)]
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
    """Counts of usable rows, truncated rows and tokens."""
    return {
        "used": len(used),
        "cut": sum(row.get("cut", False) for row in used),
        "tokens": sum(len(row[column]) for row in used for column in columns),
    }
