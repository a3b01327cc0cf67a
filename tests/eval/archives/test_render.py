"""Rendered judge prompts, compared with an independent filling of FastChat's templates on the real files."""

import contextlib
import io
import json

import pytest

from salsa.runtime.jsonl import read_jsonl, write_jsonl

GUIDED = {"math", "reasoning", "coding"}


@pytest.fixture
def render(command):
    """render(protocol, **options) -> (status, standard error, printed lines)."""

    def run(protocol, **options):
        arguments = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", value)]
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            status, said = command("eval", "render", "--protocol", protocol, *arguments)
        return status, said, [json.loads(line) for line in printed.getvalue().splitlines()]

    return run


def fastchat_answers(questions, side: str) -> list[dict]:
    """Answers that contain braces: {question} would be expanded by a second pass."""
    choices = [{"index": 0, "turns": [f"{side}1 {{question}}", f"{side}2 {{x}}"]}]
    return [{"question_id": question["question_id"], "choices": choices} for question in questions]


def expected(templates, question, references, turn, shown) -> tuple[str, list[dict]]:
    """FastChat's choice of template, filled with str.format."""
    kind = "pair" if len(shown) == 2 else "single"
    guided = question["category"] in GUIDED
    version = "math-v1" if guided else "v2" if kind == "pair" else "v1"
    name = f"{kind}-{version}" + ("-multi-turn" if turn == 2 else "")
    values = {f"ref_answer_{n}": text for n, text in enumerate(references.get(question["question_id"], []), 1)}
    sides = ["answer_a", "answer_b"] if kind == "pair" else ["answer"]
    for side, texts in zip(sides, shown, strict=True):
        values |= {side: texts[0], f"{side}_1": texts[0], f"{side}_2": texts[1]}
    values |= {"question": question["turns"][0], "question_1": question["turns"][0], "question_2": question["turns"][1]}
    row = templates[name]
    return name, [
        {"role": "system", "content": row["system_prompt"]},
        {"role": "user", "content": row["prompt_template"].format(**values)},
    ]


@pytest.mark.parametrize("protocol", ["mt_bench_single", "mt_bench_pair"])
def test_mt_bench_prompts_equal_fastchats(protocol, render, shared_data, tmp_path):
    folder = shared_data / "mt_bench"
    questions = read_jsonl(folder / "question.jsonl")
    templates = {row["name"]: row for row in read_jsonl(folder / "judge_prompts.jsonl")}
    references = {r["question_id"]: r["choices"][0]["turns"] for r in read_jsonl(folder / "reference_gpt-4.jsonl")}
    a, b = fastchat_answers(questions, "a"), fastchat_answers(questions, "b")
    write_jsonl(tmp_path / "a.jsonl", a)
    write_jsonl(tmp_path / "b.jsonl", b)
    files = {"questions": folder / "question.jsonl", "templates": folder / "judge_prompts.jsonl"}
    files |= {"references": folder / "reference_gpt-4.jsonl", "answers": tmp_path / "a.jsonl"}
    games = [(1, (a, b)), (2, (b, a))] if protocol == "mt_bench_pair" else [(1, (a,))]
    if protocol == "mt_bench_pair":
        files["answers_b"] = tmp_path / "b.jsonl"
    status, _, lines = render(protocol, **files)
    assert status == 0
    wanted = []
    for i, question in enumerate(questions):
        for turn in (1, 2):
            for game, sides in games:
                shown = [side[i]["choices"][0]["turns"] for side in sides]
                name, messages = expected(templates, question, references, turn, shown)
                place = {"question_id": question["question_id"], "turn": turn, "game": game}
                wanted.append({**place, "template": name, "messages": messages})
    assert len(wanted) == 160 * len(games)
    assert lines == wanted


def test_arena_hard_with_published_answers_and_ours(render, shared_data, tmp_path, caplog):
    """The baseline's file has 50 answers; the other questions are left out with a message."""
    folder = shared_data / "arena_hard"
    answers = read_jsonl(folder / "gpt-4-0314.answers.first50.jsonl")
    prompts = {r["uid"]: r["prompt"] for r in read_jsonl(folder / "question.v0.1.head.jsonl")}
    ours = [
        {"question_id": r["uid"], "turns": [{"user": prompts[r["uid"]], "assistant": "{answer_a} no idea"}]}
        for r in answers
    ]
    write_jsonl(tmp_path / "ours.jsonl", ours)
    files = {"answers": folder / "gpt-4-0314.answers.first50.jsonl", "answers_b": tmp_path / "ours.jsonl"}
    both = []
    for schema in ("head", "orig"):
        status, _, lines = render("arena_hard", questions=folder / f"question.v0.1.{schema}.jsonl", **files)
        assert status == 0
        assert "left out 450 of 500 questions without an answer" in caplog.text
        both.append(lines)
    assert both[0] == both[1]
    assert [(line["turn"], line["game"], line["template"]) for line in lines[:2]] == [
        (1, 1, "arena-hard"),
        (1, 2, "arena-hard"),
    ]
    published = {row["uid"]: row["messages"][-1]["content"]["answer"] for row in answers}
    for first, second in zip(lines[::2], lines[1::2], strict=True):
        theirs, text = published[first["question_id"]], first["messages"][-1]["content"]
        swapped = second["messages"][-1]["content"]
        assert text.index(prompts[first["question_id"]]) < text.index(theirs) < text.rindex("{answer_a} no idea")
        assert swapped.index("{answer_a} no idea") < swapped.rindex(theirs)
        assert len(text) == len(swapped)


TEMPLATES = {
    "unknown": (
        "pair-v2",
        "{question} {answer_a} {answer_b} {ref_answer_1}",
        "no value for {ref_ans",
    ),
    "missing": ("pair-v2", "{question} {answer_a}", "no place for {answer_b}, the answer to judge"),
    "turn": ("pair-v2-multi-turn", "{question_1} {answer_a_1} {answer_b_1}", "no place for {answer_a_2}"),
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_incompatible_template_is_refused(name, render, tmp_path):
    called, text, expected = TEMPLATES[name]
    write_jsonl(tmp_path / "q.jsonl", [{"question_id": 1, "category": "writing", "turns": ["one", "two"]}])
    write_jsonl(tmp_path / "a.jsonl", fastchat_answers([{"question_id": 1}], "a"))
    write_jsonl(tmp_path / "t.jsonl", [{"name": called, "system_prompt": "s", "prompt_template": text}])
    files = {"questions": tmp_path / "q.jsonl", "answers": tmp_path / "a.jsonl", "answers_b": tmp_path / "a.jsonl"}
    status, said, _ = render("mt_bench_pair", templates=tmp_path / "t.jsonl", **files)
    assert status == 1
    assert f"error: judge template {called} (t.jsonl): {expected}" in said


def test_mistakes_are_one_line(render, tmp_path):
    write_jsonl(tmp_path / "q.jsonl", [{"question_id": 1, "category": "writing", "turns": ["one"]}])
    write_jsonl(tmp_path / "a.jsonl", [{"question_id": 1, "choices": []}])
    files = {"questions": tmp_path / "q.jsonl", "answers": tmp_path / "a.jsonl"}
    assert "a.jsonl:1: cannot read an answer (IndexError" in render("mt_bench_single", **files)[1]
    assert "it compares two sides: give --answers-b" in render("mt_bench_pair", **files)[1]
    assert "leave out --answers-b" in render("mt_bench_single", answers_b=tmp_path / "a.jsonl", **files)[1]
