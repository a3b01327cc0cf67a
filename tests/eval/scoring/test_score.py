import json
import shutil
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from eval.scoring.kl import kl_divergence, mean_nll, response_kl
from eval.scoring.score import distinct
from salsa.checkpoints.loading import load_causal, load_reward, render
from salsa.models.scoring import batches_by_length, output_head, rewards
from salsa.runtime.command import main
from salsa.runtime.errors import UserError
from salsa.runtime.jsonl import read_jsonl, write_jsonl


@pytest.fixture(scope="module")
def sequences(tokenizer_of_sentences) -> tuple[list[list[int]], list[list[int]]]:
    """Prompts and responses of many lengths; some end with EOS."""
    generator = torch.Generator().manual_seed(4)
    size, end = len(tokenizer_of_sentences), tokenizer_of_sentences.eos_token_id

    def tokens(length: int) -> list[int]:
        return torch.randint(3, size, (length,), generator=generator).tolist()

    prompts = [tokens(3 + 7 * i % 20) for i in range(9)]
    responses = [tokens(1 + 5 * i % 13) + ([end] if i % 2 else []) for i in range(9)]
    return prompts, responses


def direct_kl(policy, reference, prompt: list[int], response: list[int]) -> float:
    """One sequence at a time, all logits at once, in double precision."""
    ids = torch.tensor([prompt + response])
    with torch.no_grad():
        p, q = (model(ids).logits[0, len(prompt) - 1 : -1].double().log_softmax(-1) for model in (policy, reference))
    return (p.exp() * (p - q)).sum().item()


@pytest.mark.parametrize(("batch_size", "logits_at_a_time"), [(1, 1), (4, 1000), (9, 1 << 24)])
def test_kl_equals_a_direct_computation(llamas, sequences, make_checkpoint, tmp_path, batch_size, logits_at_a_time):
    policy, sft = (load_causal(path) for path in llamas)
    third = load_causal(make_checkpoint(tmp_path / "third", seed=9, scale=3))
    prompts, responses = sequences
    found = response_kl(policy, [sft, third, policy], prompts, responses, batch_size, logits_at_a_time)
    for reference, values in zip((sft, third), found, strict=False):
        expected = [direct_kl(policy, reference, *pair) for pair in zip(prompts, responses, strict=True)]
        assert values == pytest.approx(expected, rel=1e-4)
        assert min(values) > 0.01
    assert found[2] == [0.0] * len(prompts), "the KL of a policy to itself is exactly 0"


def test_sampled_kl_agrees_with_the_full_sum():
    """The mean of log p - log q over draws from p converges to the KL over the whole vocabulary."""
    generator = torch.Generator().manual_seed(0)
    p, q = (torch.randn(1, 50, generator=generator) for _ in range(2))
    drawn = torch.multinomial(p.softmax(-1)[0], 200_000, replacement=True, generator=generator)
    ratio = (p.log_softmax(-1) - q.log_softmax(-1))[0, drawn]
    assert abs(kl_divergence(p, q).item() - ratio.mean()) < 4 * ratio.std() / 200_000**0.5


def test_output_head_equals_the_models_including_softcapping(tmp_path):
    from transformers import Gemma2Config, Gemma2ForCausalLM

    config = Gemma2Config(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        head_dim=16,
        final_logit_softcapping=0.05,
        attn_implementation="eager",
    )
    model = Gemma2ForCausalLM(config).eval()
    ids = torch.arange(3, 11)[None]
    with torch.no_grad():
        found = output_head(model)(model.base_model(ids).last_hidden_state)
        assert torch.allclose(found, model(ids).logits)
    assert found.abs().max() <= 0.05


def test_reward_equals_a_plain_forward(reward_model, sequences):
    prompts, responses = sequences
    rows = [prompt + response for prompt, response in zip(prompts, responses, strict=True)]
    plain = AutoModelForSequenceClassification.from_pretrained(reward_model).eval()
    with torch.no_grad():
        expected = [(plain(torch.tensor([row])).logits.item() - 0.5) / 2.0 for row in rows]
    model = load_reward(reward_model)
    for batch_size in (1, 4, 9):
        batches = batches_by_length(list(map(len, rows)), batch_size)
        assert rewards(model, rows, batches, 0.5, 2.0) == pytest.approx(expected, abs=1e-5)


def test_mean_nll_equals_the_models_loss(llamas, sequences):
    prompts, responses = sequences
    rows = [prompt + response for prompt, response in zip(prompts, responses, strict=True)]
    masks = [[0] * len(prompt) + [1] * len(response) for prompt, response in zip(prompts, responses, strict=True)]
    model = AutoModelForCausalLM.from_pretrained(llamas[0]).eval()
    total = 0.0
    for row, mask in zip(rows, masks, strict=True):
        labels = torch.tensor([row]).masked_fill(~torch.tensor([mask], dtype=torch.bool), -100)
        with torch.no_grad():
            total += model(torch.tensor([row]), labels=labels).loss.item() * sum(mask)
    expected = total / sum(map(sum, masks))
    for batch_size in (1, 4):
        assert mean_nll(model, rows, masks, batch_size) == pytest.approx(expected, rel=1e-5)


def test_distinct():
    assert distinct([1, 2, 1, 2], 1) == 0.5
    assert distinct([1, 2, 1, 2], 2) == pytest.approx(2 / 3)
    assert distinct([1], 2) is None


def generations(file, tokenizer) -> None:
    """A two-turn question, and one that was too long."""
    texts = ["The grass is green.", "It is seven."]
    ids = [[*tokenizer(text, add_special_tokens=False).input_ids, tokenizer.eos_token_id] for text in texts]
    turns = [
        {"user": f"Turn {i}?", "assistant": text, "tokens": len(row), "ended": True, "token_ids": row}
        for i, (text, row) in enumerate(zip(texts, ids, strict=True))
    ]
    file.parent.mkdir(parents=True)
    rows = [
        {"question_id": "1", "category": "a", "turns": turns, "error": None},
        {"question_id": "2", "category": "b", "turns": [], "error": "prompt_too_long"},
    ]
    write_jsonl(file, rows)


def command(monkeypatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["eval", "score", *map(str, arguments)])
    return main("eval", {"score": ("eval.scoring.score", "")})


def test_command(tmp_path, llamas, reward_model, tokenizer_of_sentences, monkeypatch, capsys):
    for name in ("ppo", "sft", "mixed"):
        generations(tmp_path / f"answers/{name}/mt.jsonl", tokenizer_of_sentences)
    common = ("--reward", reward_model, "--generations", tmp_path / "answers", "--benchmark", "mt", "--sft", llamas[1])
    ppo = (f"--policy=ppo={llamas[0]}", f"--reference=ppo={llamas[1]}")
    assert command(monkeypatch, *common, *ppo, "--gold", "--out", tmp_path / "scores") == 0
    rows = read_jsonl(tmp_path / "scores/ppo/mt.jsonl")
    assert [(row["question_id"], row["turn"]) for row in rows] == [("1", 1), ("1", 2)]
    assert all(
        row["kl_sft"] == row["kl_reference"] > 0 and row["gold"] is not None and row["distinct_1"] for row in rows
    )
    messages = [
        {"role": "user", "content": "Turn 0?"},
        {"role": "assistant", "content": "The grass is green."},
        {"role": "user", "content": "Turn 1?"},
    ]
    prompt = render(tokenizer_of_sentences, messages, add_generation_prompt=True)
    response = read_jsonl(tmp_path / "answers/ppo/mt.jsonl")[0]["turns"][1]["token_ids"]
    assert rows[1]["kl_sft"] == pytest.approx(direct_kl(*map(load_causal, llamas), prompt, response), rel=1e-4)
    assert not any("reward_held_out" in row for row in rows)

    other = ("--held-out-reward", reward_model)
    sft = (f"--policy=sft={llamas[1]}",)
    assert command(monkeypatch, *common, *other, *sft, "--out", tmp_path / "sft") == 0
    row = read_jsonl(tmp_path / "sft/sft/mt.jsonl")[0]
    assert row["reward_held_out"] == row["reward"], "the same model in both roles"
    assert row["kl_sft"] == 0 and row["kl_reference"] is None and row["gold"] is None

    mixed = [f"--policy=mixed={llamas[0]}", *(f"--reference=mixed={folder}" for folder in llamas)]
    mixed.append('--strategy=mixed={"mean_kl": {}}')
    assert command(monkeypatch, *common, *mixed, "--out", tmp_path / "mixed") == 0
    assert command(monkeypatch, *common, "--gold", *mixed, *ppo, *sft, "--out", tmp_path / "all") == 0
    assert read_jsonl(tmp_path / "all/ppo/mt.jsonl") == rows, "alone and with others"
    row = read_jsonl(tmp_path / "all/mixed/mt.jsonl")[1]
    assert row["kl_reference"] == pytest.approx(rows[1]["kl_sft"] / 2), "the mean of the KLs to itself and to SFT 1"
    assert {**row, "gold": None} == read_jsonl(tmp_path / "mixed/mixed/mt.jsonl")[1]

    assert command(monkeypatch, *common, *sft, f"--reference=sft-2={llamas[0]}", "--out", tmp_path / "no") == 1
    assert "no policy sft-2" in capsys.readouterr().err
    (tmp_path / "answers/ppo/mt.jsonl").write_text('{"question_id": "1", "category": "a", "turns": [{"user": "x"}]}\n')
    assert command(monkeypatch, *common, *ppo, "--out", tmp_path / "scores") == 1
    assert "mt.jsonl:1: no token_ids" in capsys.readouterr().err


def test_reward_model_without_normalisation_is_named(tmp_path, llamas, reward_model, monkeypatch, capsys):
    shutil.copytree(reward_model, tmp_path / "rm")
    config = json.loads((tmp_path / "rm/config.json").read_text())
    del config["reward_std"]
    (tmp_path / "rm/config.json").write_text(json.dumps(config))
    from salsa.models.scoring import normalisation

    with pytest.raises(UserError, match="rm/config.json: no reward_std"):
        normalisation(tmp_path / "rm")
