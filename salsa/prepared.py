"""Data sets as token ids, made once for all jobs that use them.

A prepared set is a folder named by what it is made of: the rows (a file's content, or a hub data set's revision), the
tokenizer with its chat template, the length limit and this code. The first job that needs it makes it, the others
wait for it and map it into memory. What could not be used is counted:

rows        of the source           used      of them
empty       a turn says nothing     equal     both answers are the same
tied        both scores are the same
too_long    more tokens than the limit (of a demonstration: no word of the assistant is within it)
cut         used demonstrations that go on beyond the limit
tokens      of what is used (a pair's: of both dialogues)
"""

import fcntl
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

import salsa.data
from salsa.checkpoints import render_all
from salsa.data import Row, blank, conversation, demonstration, load_rows, preference_pairs, source_name
from salsa.data_sets import DataSet
from salsa.errors import UserError
from salsa.stage import Run, log, output_folder
from salsa.training import steps

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
REASONS = ("empty", "equal", "tied", "too_long")
Counts = Counter[str]


class Prepared(NamedTuple):
    """The set, and the counts of the module's docstring."""

    data: Dataset
    counts: dict[str, int]


def demonstrations(
    rows: list[Row], tokenizer: PreTrainedTokenizerBase, limit: int, where: str, first: int, counts: Counts
) -> Iterator[Row]:
    """Whole dialogues with labels at the assistant's tokens alone, cut at the limit."""
    if "{% generation" not in str(tokenizer.chat_template).replace("{%-", "{%"):
        raise UserError(
            f"{tokenizer.name_or_path}: its chat template marks no assistant tokens: "
            "put {% generation %} … {% endgeneration %} round them"
        )
    talks = [demonstration(row, f"{where} {number}") for number, row in enumerate(rows, first)]
    kept = [messages for messages in talks if not blank(messages)]
    counts["empty"] += len(talks) - len(kept)
    if not kept:
        return
    found: Any = tokenizer.apply_chat_template(kept, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
    for ids, mask in zip(found["input_ids"], found["assistant_masks"], strict=True):
        labels = [token if marked else IGNORED for token, marked in zip(ids, mask, strict=True)][:limit]
        if all(label == IGNORED for label in labels):
            counts["too_long"] += 1
            continue
        counts["cut"] += len(ids) > limit
        yield {"input_ids": ids[:limit], "labels": labels, "length": len(labels)}


def preferences(
    rows: list[Row], tokenizer: PreTrainedTokenizerBase, limit: int, where: str, first: int, counts: Counts
) -> Iterator[Row]:
    """Pairs of whole dialogues; `prompt_length` tokens are common to both and written before the answer."""
    pairs, left_out = preference_pairs(rows, where, first)
    counts.update(left_out)
    prompts = render_all(tokenizer, [chosen[:-1] for _, chosen, _ in pairs], add_generation_prompt=True)
    sides = [render_all(tokenizer, side) for side in ([pair[1] for pair in pairs], [pair[2] for pair in pairs])]
    for (index, *_), prompt, chosen, rejected in zip(pairs, prompts, *sides, strict=True):
        if chosen[: len(prompt)] != prompt or rejected[: len(prompt)] != prompt:
            raise UserError(
                f"{tokenizer.name_or_path}: its chat template writes a prompt otherwise where an answer follows: "
                "mend it"
            )
        longest = max(len(chosen), len(rejected))
        if longest > limit:
            counts["too_long"] += 1
            continue
        gold = {key: rows[index].get(key) for key in ("gold_chosen", "gold_rejected")}
        yield {"chosen_ids": chosen, "rejected_ids": rejected, "prompt_length": len(prompt), "length": longest, **gold}


def prompts(
    rows: list[Row], tokenizer: PreTrainedTokenizerBase, limit: int, where: str, first: int, counts: Counts
) -> Iterator[Row]:
    """Dialogues up to the user's last turn, with what the template writes before an answer."""
    talks = [conversation(row, f"{where} {number}") for number, row in enumerate(rows, first)]
    kept = [messages for messages in talks if not blank(messages)]
    counts["empty"] += len(talks) - len(kept)
    for messages, ids in zip(kept, render_all(tokenizer, kept, add_generation_prompt=True), strict=True):
        if len(ids) > limit:
            counts["too_long"] += 1
            continue
        yield {"messages": json.dumps(messages, ensure_ascii=False), "ids": ids, "length": len(ids)}


KINDS: dict[str, Callable[..., Iterator[Row]]] = {
    "demonstrations": demonstrations,
    "preferences": preferences,
    "prompts": prompts,
}


def tokenizer_id(tokenizer: PreTrainedTokenizerBase) -> str:
    """A digest of all that decides on a dialogue's token ids."""
    parts = [tokenizer.backend_tokenizer.to_str(), tokenizer.chat_template, tokenizer.special_tokens_map]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _code_id() -> str:
    """A digest of the code that prepares, and of the library that tokenises."""
    code = b"".join(Path(str(file)).read_bytes() for file in (__file__, salsa.data.__file__))
    versions = [metadata.version(name) for name in ("transformers", "tokenizers")]
    return hashlib.sha256(code + json.dumps(versions).encode()).hexdigest()


def provenance(wanted: DataSet, tokenizer: PreTrainedTokenizerBase) -> Run:
    """The record of a prepared set; its id is the set's name. Where a file lies is not part of it, what is in it is."""
    settings = {
        **wanted.model_dump(exclude={"source", "seed"}),
        "source": wanted.source.model_dump(exclude={"path"}, exclude_none=True),
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
    counts: dict[str, int] = json.loads((folder / "counts.json").read_text())
    if not counts["used"]:
        why = ", ".join(f"{reason} {counts[reason]}" for reason in REASONS)
        raise UserError(
            f"{name}: of {counts['rows']} rows in {source_name(wanted.source)} none can be used ({why}; limit "
            f"{wanted.max_length} tokens): take other data or raise the limit"
        )
    # Without the file's name: what the trainers compute of a set would be kept beside it otherwise, under a name that
    # does not say all it depends on.
    return Prepared(Dataset(pa.ipc.open_stream(pa.memory_map(str(folder / "data.arrow"))).read_all()), counts)


def _make(name: str, wanted: DataSet, tokenizer: PreTrainedTokenizerBase, folder: Path, record: Run) -> None:
    rows = load_rows(wanted.source, wanted.seed)
    counts: Counts = Counter(dict.fromkeys(("rows", "used", *REASONS, "cut", "tokens"), 0))
    schema = COLUMNS[wanted.kind]
    where = f"{name}: {source_name(wanted.source)}: row"
    columns = [column for column in TOKENS if column in schema.names]
    with output_folder(folder, record) as made:
        with pa.OSFile(str(made / "data.arrow"), "wb") as file, pa.ipc.new_stream(file, schema) as stream:
            begins = range(0, len(rows), CHUNK)
            for begin in steps(begins, f"prepare {name}", lambda: {"used": counts["used"]}):
                part = rows[begin : begin + CHUNK]
                found = list(KINDS[wanted.kind](part, tokenizer, wanted.max_length, where, begin + 1, counts))
                counts["rows"] += len(part)
                counts["used"] += len(found)
                counts["tokens"] += sum(len(row[column]) for row in found for column in columns)
                stream.write_table(pa.Table.from_pylist(found, schema=schema))
        record.extra = {"counts": dict(counts)}
        (made / "counts.json").write_text(json.dumps(counts, indent=2) + "\n")
    log.info("%s: %s", name, ", ".join(f"{key} {value}" for key, value in counts.items() if value))
