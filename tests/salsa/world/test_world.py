"""The mini world: tasks that can be solved from their text, a gold reward with known values, data without leaks."""

import itertools
import json
import math
import random
from collections import Counter

import pytest

from salsa.config.sections import World
from salsa.world import samples
from salsa.world.gold import compose, correctness, gold_reward, ideal_answer, is_world_task
from salsa.world.make import write_world
from salsa.world.tasks import FAMILIES, FOLLOW_UPS, family_of, solve

SIZES = {
    "vocabulary": 500,
    "pretrain_documents": 300,
    "sft_train": 60,
    "sft_test": 20,
    "preferences_train": 60,
    "preferences_test": 30,
    "rl_prompts": 40,
    "ultrafeedback_questions": 20,
    "mt_bench_per_category": 2,
    "arena_hard_questions": 16,
}


@pytest.mark.parametrize(
    ("prompt", "items"),
    [
        ("Write a line that names the red hat and blue cup.", ("red hat", "blue cup")),
        ("Speak as a pirate and greet Tom, Ann and Bob.", ("ahoy Tom", "ahoy Ann", "ahoy Bob")),
        ("Ann is taller than Bob. Tom is taller than Ann. List them from the shortest.", ("Bob", "Ann", "Tom")),
        ("Add two to three and nine.", ("five", "eleven")),
        ("Reverse the list hat, cup and lamp.", ("lamp", "cup", "hat")),
        ("Double each in the list key.", ("key key",)),
        ("Tom has a red hat. Sue has a pink ball. Which colours are named?", ("red", "pink")),
        ("What kind of animal is the owl and bee?", ("bird", "insect")),
        ("What is the opposite of hot and new?", ("cold", "old")),
        ("What is the capital of Peru?", ("Lima",)),
        ("Write a poem about the sea.", None),
    ],
)
def test_known_answers(prompt, items):
    assert solve([prompt]) == items


def test_each_task_family_solves_only_its_own_tasks():
    rng = random.Random(1)
    for name, family in FAMILIES.items():
        for size in (1, 2, 3, 4, 5):
            prompt = family.write(rng, size)
            assert family_of(prompt) == name
            assert [other for other, f in FAMILIES.items() if f.solve(prompt) is not None] == [name]
            assert gold_reward([prompt], ideal_answer([prompt])) == pytest.approx(1.0)
            for follow_up in FOLLOW_UPS:
                assert gold_reward([prompt, follow_up], ideal_answer([prompt, follow_up])) == pytest.approx(1.0)


def test_gold_reward_follows_its_formula():
    turns = ["Write a line that names the red hat and blue cup."]
    assert gold_reward(turns, "Sure! red hat, blue cup. Happy to help.") == pytest.approx(1.0)
    assert gold_reward(turns, "red hat, blue cup.") == pytest.approx(0.8)
    assert gold_reward(turns, "red hat, blue cup.", ended=False) == pytest.approx(0.7)
    assert gold_reward(turns, "Sure! red hat, pink cup. Happy to help.") == pytest.approx(0.65)
    assert gold_reward(turns, "Sure! blue cup, red hat. Happy to help.") == pytest.approx(0.3), "positions count"
    two_more = gold_reward(turns, "Sure! red hat, blue cup. Oh well. Happy to help.")
    assert two_more == pytest.approx(0.9)
    assert gold_reward(turns, "word " * 100) == pytest.approx(0.1 - 0.5)
    assert gold_reward(["Anything else?"], "") == pytest.approx(0.1)
    assert not is_world_task(["Anything else?"])
    assert correctness(("a", "b"), ("a",)) == 0.5
    assert compose((), opening=False, closing=False) == ""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    write_world(folder, World(**SIZES), seed=3)
    return folder


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def first_turns(world, name):
    found = rows(world / f"{name}.jsonl")
    if name == "pretrain":
        return [row["turns"][0]["prompt"] for row in found]
    return [row.get("prompt") or row["turns"][0] for row in found]


def test_held_out_prompts_are_not_trained_on(world):
    trained = {text.removesuffix(f" {cue}") for text in first_turns(world, "pretrain") for cue in samples.CUES}
    trained |= {text for name in ("sft_train", "prefs_train", "rl_prompts") for text in first_turns(world, name)}
    held_out = {text for name in ("sft_test", "prefs_test") for text in first_turns(world, name)}
    held_out |= {
        text
        for name in ("mt_bench", "arena_hard", "ultrafeedback")
        for text in first_turns(world, f"benchmarks/{name}")
    }
    assert not trained & held_out


def test_arena_hard_is_longer_than_anything_trained_on(world):
    sizes = {
        name: {len(solve([text]) or ()) for text in first_turns(world, name) if is_world_task([text])}
        for name in ("sft_train", "rl_prompts", "benchmarks/arena_hard")
    }
    assert min(sizes["benchmarks/arena_hard"]) >= 4
    assert max(sizes["sft_train"] | sizes["rl_prompts"]) <= 4, "reasoning tasks name one more person"


def test_mt_bench_has_its_shape(world):
    questions = rows(world / "benchmarks/mt_bench.jsonl")
    assert Counter(row["category"] for row in questions) == dict.fromkeys(FAMILIES, 2)
    assert all(len(row["turns"]) == 2 for row in questions)
    assert {row["category"] for row in questions if "reference" in row} == {"math", "reasoning", "coding"}


def test_files_repeat_and_a_size_changes_only_its_file(world, tmp_path):
    for name in ("same", "larger"):
        (tmp_path / name).mkdir()
    write_world(tmp_path / "same", World(**SIZES), seed=3)
    write_world(tmp_path / "larger", World(**{**SIZES, "sft_test": 25}), seed=3)
    names = [str(path.relative_to(world)) for path in sorted(world.rglob("*")) if path.is_file()]
    for name in names:
        assert (world / name).read_bytes() == (tmp_path / "same" / name).read_bytes()
        if name != "sft_test.jsonl":
            assert (world / name).read_bytes() == (tmp_path / "larger" / name).read_bytes()


def test_preferences_follow_bradley_terry():
    """The better answer by gold reward is chosen with probability sigmoid(difference / temperature)."""
    temperature = 0.2
    pairs = list(samples.preferences(random.Random(5), 4000, 0.2, temperature, test=False, name="x"))
    better, expected, variance = 0, 0.0, 0.0
    for pair in pairs:
        difference = pair["gold_chosen"] - pair["gold_rejected"]
        if difference:
            p = 1 / (1 + math.exp(-abs(difference) / temperature))
            better, expected, variance = better + (difference > 0), expected + p, variance + p * (1 - p)
    assert abs(better - expected) < 4 * math.sqrt(variance)
    assert all(pair["score_chosen"] >= pair["score_rejected"] for pair in pairs)


def test_demonstrations_leave_room_for_improvement():
    found = list(samples.demonstrations(random.Random(6), 1000, 0.25, test=False))
    golds = []
    for row in found:
        users = [message["content"] for message in row["messages"] if message["role"] == "user"]
        golds.append(gold_reward(users, row["messages"][-1]["content"]))
    assert 0.6 < sum(golds) / len(golds) < 0.8


def test_tokenizer_restores_any_text_and_has_one_token_per_word(world):
    from salsa.checkpoints.loading import load_tokenizer, render

    tokenizer = load_tokenizer(world / "tokenizer")
    for text in ("Tom has a red hat.", "Ünïcode → 😀", "<|user|> [[A]]"):
        ids = tokenizer(text, add_special_tokens=False).input_ids
        assert tokenizer.decode(ids).strip() == text
    assert len({tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id}) == 3
    told = render(tokenizer, [{"role": "user", "content": "red"}, {"role": "assistant", "content": "red hat."}])
    inside = tokenizer("a red hat", add_special_tokens=False).input_ids
    assert inside[1] in told, "a word has the same token at the start of an answer as inside a sentence"
    assert all(a != b for a, b in itertools.combinations(tokenizer.all_special_ids, 2))
