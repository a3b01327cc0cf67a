"""Calibrate judges with known faults, over a real HTTP endpoint."""

import contextlib
import io
import json
import random
import re

import pytest

from eval.ledger.calls import CALLS
from eval.protocols.prompt_parsing import parse_judge_prompt
from salsa.runtime.jsonl import read_jsonl
from tests.eval.archive_case import arena, pair, rated, single, write
from tests.eval.judge_server import chat

QUESTIONS = range(81, 121)
USAGE = {"prompt_tokens": 100, "completion_tokens": 10}


@pytest.fixture
def archive(command, tmp_path):
    """archive(format, rows) -> a ledger into which `import` has written them."""

    def fill(form, rows, name="archive"):
        file = write(tmp_path / f"{name}.jsonl", rows)
        with contextlib.redirect_stdout(io.StringIO()):
            assert command("eval", "import", "--format", form, file, "--ledger", tmp_path / name)[0] == 0
        return tmp_path / name

    return fill


@pytest.fixture
def calibrate(command, flaky, tmp_path):
    """calibrate(archive, say, …) -> (judge, figures of the only cell, card, printed). `say(request)` is the judge's
    reply; `judge.requests` are the requests it got.
    """

    def run(folder, say, *more, **settings):
        requests = []

        def reply(number, request):
            requests.append(request)
            return 200, chat(say(request), usage=USAGE)

        judge = flaky(reply)
        judge.requests = requests
        arguments = ["--archive", folder, "--ledger", tmp_path / "ledger"]
        arguments += ["--settings", json.dumps(judge.settings(**settings))]
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            status, said = command("eval", "calibrate", *arguments, "--out", tmp_path / "card.json", *more)
        assert status == 0, said
        card = json.loads((tmp_path / "card.json").read_text())
        [cell] = card["cells"]
        return judge, {name: figure["estimate"] for name, figure in cell["figures"].items()}, card, printed.getvalue()

    return run


def prompt(request: dict) -> str:
    return request["messages"][-1]["content"]


def pairs(seed: int = 1) -> list[dict]:
    """Answers of different lengths, and a judge that ignores length but prefers the first position."""
    rng = random.Random(seed)
    return [
        pair(rng.choice("AABC"), rng.choice("AAB"), q, lengths=rng.sample(range(3, 60), 2), judge=["gpt-4", "pair-v2"])
        for q in QUESTIONS
    ]


def of_archive(rows) -> dict[str, str]:
    """The archived verdict for each prompt."""
    return {row[f"g{n}_user_prompt"]: row[f"g{n}_judgment"] for row in rows for n in (1, 2)}


def first_place(texts) -> float:
    winners = [text[-3] for text in texts if text[-3] != "C"]
    return winners.count("A") / len(winners)


def test_judge_that_repeats_the_archive_agrees_fully(archive, calibrate):
    rows = pairs()
    known = of_archive(rows)
    judge, figures, card, printed = calibrate(archive("fastchat_pair", rows), lambda request: known[prompt(request)])
    assert figures["agreement"] == figures["agreement_decided"] == figures["parse_rate"] == 1
    for name in ("first_place", "longer", "swap_consistency"):
        assert figures[name] == figures[f"archive_{name}"]
    assert figures["first_place"] == pytest.approx(first_place(known.values()))
    agreeing = [row["g1_winner"] == row["g2_winner"] for row in rows]
    assert figures["swap_consistency"] == pytest.approx(sum(agreeing) / len(agreeing))
    assert judge.count == card["calls"] == 2 * len(rows)
    assert "## mt_bench, mt_bench_pair, archive gpt-4" in printed
    assert "| agreement | 1.000 [0.912, 1.000] | 40 |" in printed


def test_position_bias_is_measured(archive, calibrate):
    rows = pairs()
    _, figures, card, _ = calibrate(archive("fastchat_pair", rows), lambda request: "[[A]]")
    said = list(of_archive(rows).values())
    assert (figures["first_place"], figures["swap_consistency"]) == (1, 0)
    assert figures["agreement"] == pytest.approx(sum(text[-3] == "A" for text in said) / len(said))
    assert figures["agreement_decided"] == pytest.approx(first_place(said))
    [cell] = card["cells"]
    figure = cell["figures"]["agreement"]
    assert figure["low"] < figure["estimate"] < figure["high"]


def test_length_bias_is_measured(archive, calibrate):
    def longer(request):
        first, second = map(len, parse_judge_prompt(prompt(request)).answers)
        return f"[[{'A' if first > second else 'B'}]]"

    _, figures, _, _ = calibrate(archive("fastchat_pair", pairs()), longer)
    assert (figures["longer"], figures["swap_consistency"]) == (1, 1)
    assert 0 < figures["archive_longer"] < 1


def test_unparsed_replies_lower_only_the_parse_rate(archive, calibrate):
    rows = pairs()
    known = of_archive(rows)
    garbled = set(random.Random(2).sample(sorted(known), 20))
    _, figures, card, _ = calibrate(
        archive("fastchat_pair", rows),
        lambda request: "No idea." if prompt(request) in garbled else known[prompt(request)],
    )
    assert figures["parse_rate"] == pytest.approx(60 / 80)
    assert figures["agreement"] == 1
    assert card["cells"][0]["items"] == 80


def test_ratings_are_compared_as_numbers(archive, calibrate):
    rng = random.Random(3)
    rows = [rated(q, rng.randint(1, 8), answer="x" * rng.randint(1, 50)) for q in QUESTIONS]
    known = {row["user_prompt"]: row["score"] for row in rows}
    _, figures, card, printed = calibrate(
        archive("fastchat_single", rows), lambda request: f"Rating: [[{known[prompt(request)] + 1:g}]]"
    )
    assert (figures["within_one"], figures["difference"], figures["rank_correlation"]) == (1, 1, pytest.approx(1))
    assert figures["length_correlation"] == pytest.approx(figures["archive_length_correlation"])
    assert "| rating, judge minus archive | 1.000 [1.000, 1.000] | 40 |" in printed
    _, figures, card, _ = calibrate(
        archive("fastchat_single", rows),
        lambda request: f"[[{len(parse_judge_prompt(prompt(request)).answers[0]) / 6 + 1:.2f}]]",
        temperature=0.5,
    )
    assert figures["length_correlation"] > 0.99
    assert abs(figures["rank_correlation"]) < 0.6
    low, high = (card["cells"][0]["figures"]["rank_correlation"][key] for key in ("low", "high"))
    assert low < figures["rank_correlation"] < high


def test_prompt_comes_from_the_archive_and_system_prompt_from_its_template(archive, calibrate, tmp_path):
    templates = [{"name": "pair-v2", "system_prompt": "Be just.", "prompt_template": "{question}{answer_a}{answer_b}"}]
    file = write(tmp_path / "judge_prompts.jsonl", templates)
    rows = pairs()[:3]
    judge, *_ = calibrate(archive("fastchat_pair", rows), lambda request: "[[C]]", "--templates", file)
    asked = [[(message["role"], message["content"]) for message in request["messages"]] for request in judge.requests]
    expected = [[("system", "Be just."), ("user", text)] for text in of_archive(rows)]
    assert sorted(asked) == sorted(expected)


def test_unknown_template_is_refused(archive, command, tmp_path):
    folder = archive("fastchat_pair", [pair("A", "B", judge=["gpt-4", "pair-v9"])])
    arguments = ["--archive", folder, "--ledger", tmp_path / "ledger", "--settings", '{"kind": "gold", "model": "g"}']
    status, said = command("eval", "calibrate", *arguments, "--out", tmp_path / "card.json")
    assert (status, said.count("\n")) == (1, 1)
    assert "question 81: the archive's prompt uses template pair-v9" in said and "--templates" in said
    assert not (tmp_path / "card.json").exists()


def test_sample_has_whole_matches_and_ignores_archive_order(archive, calibrate):
    def drawn(rows, name, *more):
        folder = archive("fastchat_pair", rows, name)
        judge, *_ = calibrate(folder, lambda request: "[[A]]", "--items", 7, *more, model=name)
        return sorted(int(re.search(r"Why (\d+)", prompt(request))[1]) for request in judge.requests)

    first = drawn(pairs(), "one")
    assert len(first) == 14 and first[::2] == first[1::2]
    assert drawn(pairs()[::-1], "turned-round") == first
    assert drawn(pairs(), "another-seed", "--seed", 2) != first


def test_calls_are_made_once_and_never_taken_from_the_archive(archive, calibrate, tmp_path):
    """With the archive's folder as the ledger: archived verdicts answer no call, as their parameters are unknown."""
    rows = pairs()
    folder = archive("fastchat_pair", rows, "ledger")
    judge, first, card, _ = calibrate(folder, lambda request: "[[B]]", input_price=1.0, output_price=10.0)
    assert (judge.count, card["calls"], card["calls_from_ledger"]) == (80, 80, 0)
    assert card["cost"] == pytest.approx(80 * (100 * 1 + 10 * 10) / 1e6)
    assert first["cost"] == pytest.approx(200 / 1e6)
    again, second, card, _ = calibrate(folder, lambda request: "[[A]]", input_price=1.0, output_price=10.0)
    assert (again.count, card["calls_from_ledger"]) == (0, 80)
    assert second == first
    assert len(read_jsonl(folder / CALLS)) == 160


def test_estimate_makes_no_calls(archive, command, flaky, tmp_path):
    judge = flaky(lambda _, request: (200, chat("[[A]]")))
    folder = archive("fastchat_pair", pairs())
    arguments = ["--archive", folder, "--ledger", tmp_path / "ledger", "--settings", json.dumps(judge.settings())]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        status, _ = command("eval", "calibrate", *arguments, "--items", 10, "--estimate")
    assert status == 0
    assert "calls     20: 0 in the ledger, 20 new" in printed.getvalue()
    assert judge.count == 0


def test_arena_hard_follows_up_on_a_missing_verdict(archive, calibrate):
    rows = [arena(f"q{n}", "m", ["A>B", "B>>A"]) for n in range(5)]

    def say(request):
        if len(request["messages"]) == 2:
            return "Both have merits."
        assert [message["role"] for message in request["messages"]] == ["system", "user", "assistant", "user"]
        return "[[A>B]]"

    judge, figures, _, _ = calibrate(archive("arena_hard_battles", rows), say)
    assert judge.count == 20
    assert (figures["agreement"], figures["swap_consistency"], figures["archive_swap_consistency"]) == (0.5, 0, 1)


def test_own_ledger_works_as_an_archive(cell, questions, calibrate, tmp_path):
    """The gold judge's verdicts on two policies are requested from another judge; the ledger stores whole
    conversations.
    """
    cell("mt_bench", questions)
    judge, figures, card, _ = calibrate(tmp_path / "ledger", lambda request: "[[A]]")
    assert judge.count == 32
    assert card["cells"][0]["archive_judge"].startswith("gold-judge(")
    assert (figures["archive_swap_consistency"], figures["agreement"]) == (1, 0.5)


def test_items_without_text_or_second_game_are_left_out(archive, calibrate, command, tmp_path):
    rows = pairs()[:6]
    rows[0]["g1_judgment"] = "$ERROR$"
    rows[1]["g2_judgment"] = "Cannot say."
    judge, _, card, _ = calibrate(archive("fastchat_pair", rows), lambda request: "[[A]]")
    assert (judge.count, card["left_out"]) == (8, 2)
    none = archive("fastchat_single", [single(text="$ERROR$")], "none")
    arguments = ["--archive", none, "--ledger", tmp_path / "ledger", "--settings", '{"kind": "gold", "model": "g"}']
    status, said = command("eval", "calibrate", *arguments, "--out", tmp_path / "none.json")
    assert (status, said.count("\n")) == (1, 1)
    assert "none: no verdict has its text, its prompt and its other game" in said
