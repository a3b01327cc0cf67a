"""A case whose answer is known: with few enough responses the KL-regularised optimum can be written down.

maximise E_pi[r] - beta KL(pi || ref)  has the one solution  pi*(y) = ref(y) exp(r(y) / beta) / Z.
"""

from types import SimpleNamespace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

from salsa.checkpoints import load_causal
from salsa.config import Ppo
from salsa.ppo.models import Models, Sequences, log_probs
from salsa.ppo.rollout import Prompt
from salsa.ppo.trainer import train
from salsa.soup import soup

PAD, EOS, PROMPT, VOCABULARY = 0, 1, [2], 5
# Every response of at most two tokens.
RESPONSES = [[EOS]] + [[a, b] for a in range(VOCABULARY) if a != EOS for b in range(VOCABULARY)]
BETA = 0.5
SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
IDS = {"vocab_size": VOCABULARY, "pad_token_id": PAD, "eos_token_id": EOS, "bos_token_id": 2}


def network(seed: int, reward: bool = False):
    torch.manual_seed(seed)
    if reward:
        return LlamaForSequenceClassification(LlamaConfig(**SIZES, **IDS, num_labels=1)).eval()
    model = LlamaForCausalLM(LlamaConfig(**SIZES, **IDS, initializer_range=0.2)).eval()
    with torch.no_grad():  # far enough from uniform that two references differ
        model.lm_head.weight.mul_(2)
    return model


@torch.no_grad()
def distribution(model) -> torch.Tensor:
    """Log-probabilities [21] of all responses; they sum to 1."""
    sequences = Sequences.of([PROMPT] * len(RESPONSES), RESPONSES, PAD)
    tokens = log_probs(model, sequences, 1.0).split([len(response) for response in RESPONSES])
    found = torch.stack([part.sum() for part in tokens])
    assert found.exp().sum().item() == pytest.approx(1, abs=1e-4)
    return found


def divergence(p: torch.Tensor, q: torch.Tensor) -> float:
    """KL(p || q) in nats of log-probabilities."""
    return (p.exp() * (p - q)).sum().item()


@pytest.fixture(scope="module")
def references(tmp_path_factory):
    """SFT 1 and its soup with another model, from disk as the stage would take them."""
    folder = tmp_path_factory.mktemp("known")
    for seed in (1, 2):
        network(seed).save_pretrained(folder / str(seed))
    (folder / "soup").mkdir()
    soup({folder / "1": 0.5, folder / "2": 0.5}, folder / "soup")
    return {"sft": load_causal(folder / "1"), "soup": load_causal(folder / "soup")}


def reward_of() -> dict[tuple[int, ...], float]:
    drawn = torch.randn(len(RESPONSES), generator=torch.Generator().manual_seed(3)).tolist()
    return dict(zip(map(tuple, RESPONSES), drawn, strict=True))


@pytest.mark.parametrize("name", ["sft", "soup"])
def test_ppo_converges_to_the_enumerated_optimum(name, references, monkeypatch):
    table = reward_of()
    rewards = torch.tensor(list(table.values()))
    optimum = {key: (distribution(model) + rewards / BETA).log_softmax(0) for key, model in references.items()}
    assert divergence(optimum["sft"], optimum["soup"]) > 0.1, "the references ask for different policies"

    def scores(model, sequences, pad, batch_size, mean, std):
        return [table[tuple(row[len(PROMPT) :])] for row in sequences]

    monkeypatch.setattr("salsa.ppo.rollout.rewards", scores)
    settings = Ppo.model_validate(
        {
            "prompts": {"path": "unused"},
            "steps": 80,
            "rollout_batch_size": 256,
            "train_batch_size": 256,
            "epochs": 4,
            "learning_rate": 2e-3,
            "value_learning_rate": 3e-3,
            "beta": BETA,
            "missing_eos_penalty": 0,
            "max_prompt_length": 1,
            "max_new_tokens": 2,
        }
    )
    policy = network(1)
    models = Models(
        tokenizer=SimpleNamespace(pad_token_id=PAD, eos_token_id=EOS),
        policy=policy,
        value=network(4, reward=True),
        reference=references[name],
        sft=references["sft"],
        reward=network(5, reward=True),
        normalisation=(0.0, 1.0),
    )
    before = divergence(distribution(policy), optimum[name])
    train(models, [Prompt([], PROMPT)] * 4, settings, seed=1, rl_seed=1, gold=False)
    found = distribution(policy)
    other = optimum["soup" if name == "sft" else "sft"]
    assert divergence(found, optimum[name]) < 0.02 < 0.2 * before
    assert divergence(found, other) > 5 * divergence(found, optimum[name])
