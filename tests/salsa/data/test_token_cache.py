"""The cache of token ids: its contents compared with TRL's preparation, and when it is rebuilt."""

import json
import multiprocessing
from pathlib import Path

import pytest
from datasets import Dataset
from trl import RewardConfig, RewardTrainer, SFTConfig, SFTTrainer

import salsa.data.token_cache
from salsa.checkpoints.loading import load_causal, load_reward, load_tokenizer, render
from salsa.config.config import load_config, with_local_copies
from salsa.config.sections import TrainingData
from salsa.data.token_cache import prepare
from salsa.data.training_sets import DataSet, all_sets, training_sets
from salsa.runtime.errors import UserError
from salsa.runtime.jsonl import write_jsonl

ROOT = Path(__file__).parents[3]
QUIET = {"use_cpu": True, "report_to": "none", "save_strategy": "no", "disable_tqdm": True, "bf16": False}


def talk(*texts: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


def wanted(kind: str, path: Path, limit: int, **keys) -> DataSet:
    return DataSet(kind=kind, source=TrainingData(path=str(path), **keys), max_length=limit, seed=1)


@pytest.fixture
def dialogues(tmp_path) -> Path:
    """One and two turns, short and long, one empty, and a prompt too long for its answer."""
    rows = [{"messages": talk(f"Name the colour of grass {n}.", "The grass is green. " * (n + 1))} for n in range(12)]
    rows += [{"messages": talk("Say hello.", "hello", "And again?", f"hello {n}")} for n in range(4)]
    rows += [{"messages": talk("hi", " ")}, {"messages": talk("one two three " * 40, "four")}]
    write_jsonl(tmp_path / "sft.jsonl", rows)
    return tmp_path / "sft.jsonl"


@pytest.fixture
def pairs(tmp_path) -> Path:
    rows = [{"chosen": talk("hi", f"hello {n}"), "rejected": talk("hi", "no " * (8 * n + 1))} for n in range(12)]
    rows += [{**rows[0], "score_chosen": 2, "score_rejected": 2}, {**rows[0], "rejected": rows[0]["chosen"]}]
    rows += [{**rows[0], "rejected": talk("hi", "")}, {**rows[1], "score_chosen": 3.5, "score_rejected": 1.0}]
    write_jsonl(tmp_path / "pairs.jsonl", rows)
    return tmp_path / "pairs.jsonl"


def test_demonstrations_equal_trls(dialogues, llamas, tmp_path):
    """TRL tokenises, masks, truncates and drops the same, given the dialogues."""
    tokenizer = load_tokenizer(llamas[0])
    data, counts = prepare("sft.train", wanted("demonstrations", dialogues, 48), tokenizer, tmp_path / "cache")
    assert counts["rows"] == 18 and counts["empty"] == 1 and counts["too_long"] == 1
    assert counts["used"] == len(data) == 16 and 0 < counts["cut"] < 12
    assert counts["tokens"] == sum(map(len, data["input_ids"])) and max(data["length"]) == 48
    rows = [json.loads(line) for line in dialogues.read_text().splitlines()]
    theirs = SFTTrainer(
        model=load_causal(llamas[0]),
        args=SFTConfig(output_dir=str(tmp_path / "trl"), max_length=48, assistant_only_loss=True, **QUIET),
        train_dataset=Dataset.from_list([row for row in rows if row["messages"][1]["content"].strip()]),
        processing_class=tokenizer,
    ).train_dataset
    assert list(data["input_ids"]) == list(theirs["input_ids"])
    assert list(data["labels"]) == list(theirs["labels"])


def test_preferences_equal_trls(pairs, reward_model, tmp_path):
    tokenizer = load_tokenizer(reward_model)
    data, counts = prepare("reward.train", wanted("preferences", pairs, 64), tokenizer, tmp_path / "cache")
    assert (counts["rows"], counts["empty"], counts["equal"], counts["tied"]) == (16, 1, 1, 1)
    assert 0 < counts["too_long"] < 12 and counts["used"] == len(data) == 13 - counts["too_long"]
    rows = [json.loads(line) for line in pairs.read_text().splitlines()]
    rows = [{side: row[side] for side in ("chosen", "rejected")} for row in [*rows[:12], rows[-1]]]
    theirs = RewardTrainer(
        model=load_reward(reward_model),
        args=RewardConfig(output_dir=str(tmp_path / "trl"), max_length=64, **QUIET),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    ).train_dataset
    for side in ("chosen_ids", "rejected_ids"):
        assert list(data[side]) == list(theirs[side])
    begin = data[0]["prompt_length"]
    assert data[0]["chosen_ids"][:begin] == render(tokenizer, talk("hi"), add_generation_prompt=True)


def test_prompts_end_where_the_answer_begins(tmp_path, llamas):
    rows = [{"prompt": "hi"}, {"messages": talk("a", "b", "c")}, {"messages": talk("a", "b", "c", "d")}]
    write_jsonl(tmp_path / "p.jsonl", [*rows, {"prompt": " "}, {"prompt": "word " * 100}])
    tokenizer = load_tokenizer(llamas[0])
    data, counts = prepare("ppo.prompts", wanted("prompts", tmp_path / "p.jsonl", 64), tokenizer, tmp_path / "cache")
    assert (counts["used"], counts["empty"], counts["too_long"]) == (3, 1, 1)
    said = [json.loads(text) for text in data["messages"]]
    assert said == [talk("hi"), talk("a", "b", "c"), talk("a", "b", "c")]
    assert list(data["ids"]) == [render(tokenizer, messages, add_generation_prompt=True) for messages in said]


def test_rows_keep_order_and_numbers_across_chunks(dialogues, llamas, tmp_path, monkeypatch):
    tokenizer = load_tokenizer(llamas[0])
    whole = prepare("x", wanted("demonstrations", dialogues, 48), tokenizer, tmp_path / "one")
    monkeypatch.setattr(salsa.data.token_cache, "CHUNK", 5)
    parts = prepare("x", wanted("demonstrations", dialogues, 48), tokenizer, tmp_path / "two")
    assert list(whole.data) == list(parts.data) and whole.counts == parts.counts


def test_unusable_rows_are_left_out_and_counted_up_to_a_share(llamas, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(salsa.data.token_cache, "CHUNK", 16)
    tokenizer, path = load_tokenizer(llamas[0]), tmp_path / "sft.jsonl"
    rows = [{"messages": talk(f"Say {n}.", f"{n}")} for n in range(200)]
    rows[20] = {"messages": talk("only a question")}
    rows[40] = {"messages": talk("hi", " ")}
    rows[150] = {"text": "of another schema"}
    write_jsonl(path, rows)
    data, counts = prepare("sft.train", wanted("demonstrations", path, 48), tokenizer, tmp_path / "cache")
    assert (counts["rows"], counts["used"], len(data)) == (200, 197, 197)
    assert (counts["roles"], counts["malformed"], counts["empty"]) == (1, 1, 1)
    assert "sft.train: 2 of 200 rows cannot be used and are left out (row 21: `messages` does not end" in caplog.text
    for n in (60, 61):
        rows[n] = {"messages": [*talk("hi", "ho"), {"role": "tool", "content": "5"}]}
    write_jsonl(path, rows)
    expected = (
        r"^sft\.train: \S+/sft\.jsonl: 4 of 200 rows cannot be used, more than 1\.00% \(row 21: `messages` does not "
        r"end with an assistant turn: use a _sft split; row 61: .* 'tool'; .*; row 62: .*\): fix them, or"
    )
    for _ in range(2):  # made, and found in the cache
        with pytest.raises(UserError, match=expected):
            prepare("sft.train", wanted("demonstrations", path, 48), tokenizer, tmp_path / "cache")
    more = wanted("demonstrations", path, 48, unusable=0.02)
    assert prepare("sft.train", more, tokenizer, tmp_path / "cache").counts["used"] == 195


def test_only_the_dialogue_that_the_template_refuses_is_left_out(llamas, tmp_path):
    tokenizer, path = load_tokenizer(llamas[0]), tmp_path / "rows.jsonl"
    tokenizer.chat_template = (
        "{%- if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif -%}"
        + tokenizer.chat_template
    )
    system = {"role": "system", "content": "Be kind."}
    rows = [{"messages": talk("a", "b")}, {"messages": [system, *talk("a", "b")]}, {"messages": talk("c", "d")}]
    rows = [{**row, "chosen": row["messages"], "rejected": [*row["messages"][:-1], talk("", "e")[1]]} for row in rows]
    write_jsonl(path, rows)
    for kind in ("demonstrations", "preferences", "prompts"):
        found = prepare("x", wanted(kind, path, 48, unusable=0.5), tokenizer, tmp_path / "cache")
        assert (found.counts["used"], found.counts["refused"]) == (2, 1), kind
    with pytest.raises(UserError, match=r"row 2: the chat template refuses it: System role not supported\)"):
        prepare("x", wanted("prompts", path, 48), tokenizer, tmp_path / "cache")


@pytest.mark.parametrize(
    "attack",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{% for x in messages %}{% endfor %}{{ x",
        "{% include '/etc/hosts' %}",
    ],
)
def test_template_that_is_broken_or_leaves_its_sandbox_ends_the_run(llamas, tmp_path, attack):
    tokenizer = load_tokenizer(llamas[0])
    tokenizer.chat_template = attack + "{# {% generation %} #}"
    write_jsonl(tmp_path / "rows.jsonl", [{"messages": talk("a", "b")}])
    for kind in ("demonstrations", "prompts"):
        with pytest.raises(UserError, match="chat template"):
            prepare("x", wanted(kind, tmp_path / "rows.jsonl", 48), tokenizer, tmp_path / "cache")


def test_set_is_rebuilt_if_its_content_changes(dialogues, llamas, tmp_path):
    """By content: a copy of the file counts as the same, and so do other seeds if no rows are drawn."""
    tokenizer, cache = load_tokenizer(llamas[0]), tmp_path / "cache"

    def sets(**changes) -> int:
        path = changes.pop("path", dialogues)
        prepare("x", wanted("demonstrations", path, **{"limit": 48, **changes}), tokenizer, cache)
        return len([folder for folder in cache.iterdir() if folder.is_dir()])

    copy = tmp_path / "copy.jsonl"
    copy.write_text(dialogues.read_text())
    assert sets() == 1 and sets() == 1 and sets(path=copy) == 1
    assert sets(limit=40) == 2
    copy.write_text("\n".join(copy.read_text().splitlines()[:-1]))
    assert sets(path=copy) == 3
    prepare("x", wanted("preferences", _pairs(tmp_path), 48), tokenizer, cache)
    tokenizer.chat_template += "{# another #}"
    assert sets() == 5
    drawn = wanted("demonstrations", dialogues, 48).model_copy(
        update={"source": TrainingData(path=str(dialogues), limit=4)}
    )
    for seed in (1, 2):
        prepare("x", drawn.model_copy(update={"seed": seed}), tokenizer, cache)
    assert sets() == 7


def _pairs(folder: Path) -> Path:
    write_jsonl(folder / "one.jsonl", [{"chosen": talk("hi", "a"), "rejected": talk("hi", "b")}])
    return folder / "one.jsonl"


def _prepare(folder: Path, cache: Path, barrier) -> None:
    made = salsa.data.token_cache._make

    def counted(*arguments) -> None:
        with (cache.parent / "made").open("a") as file:
            file.write("x")
        made(*arguments)

    salsa.data.token_cache._make = counted
    tokenizer = load_tokenizer(folder)
    barrier.wait()
    prepare("x", wanted("preferences", cache.parent / "pairs.jsonl", 64), tokenizer, cache)


def test_concurrent_processes_build_a_set_once(pairs, llamas, tmp_path):
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(3)
    processes = [context.Process(target=_prepare, args=(llamas[0], tmp_path / "cache", barrier)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert (tmp_path / "made").read_text() == "x"


def test_paper_grid_reads_each_split_from_one_file_of_its_revision():
    config, files = with_local_copies(load_config(ROOT / "config/paper.yaml", ROOT / "config/ablations.yaml"))
    assert len(files) == 6
    for path, source in files.items():
        assert source.revision in path and path.endswith(f"/{source.split}.jsonl")
    sets = all_sets(config, "gemma-2b")
    assert {found.source.path for found in sets.values()} <= files.keys()
    assert sets["ppo.prompts"].source.path.endswith("/train_gen.jsonl")
    assert config.benchmarks["ultrafeedback"].questions.limit == 500, "the limit on rows is kept"


def test_each_source_is_listed_once_and_a_models_own_separately():
    config = load_config(ROOT / "config/mini.yaml")
    assert list(training_sets(config)) == ["sft.train", "reward.train", "ppo.prompts"]
    config.models["gemma-mini"].settings = {"ppo": {"max_prompt_length": 9}, "sft": {"train": {"path": "mine.jsonl"}}}
    found = training_sets(config)
    assert list(found) == ["sft.train", "reward.train", "ppo.prompts", "sft.train of gemma-mini"]
    assert found["sft.train of gemma-mini"].source.path == "mine.jsonl"
