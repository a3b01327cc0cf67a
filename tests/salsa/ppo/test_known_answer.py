"""A case with a known answer: with few responses the KL-regularised optimum can be written down.

maximise E_pi[r] - beta KL(pi || ref)  has the one solution  pi*(y) = ref(y) exp(r(y) / beta) / Z.
"""

from types import SimpleNamespace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

from salsa.checkpoints.loading import load_causal
from salsa.checkpoints.soup import soup
from salsa.config.references import Fixed, MeanKl
from salsa.config.sections import Ppo
from salsa.models.frozen import FrozenOnDevice
from salsa.models.responses import Sequences, log_probs
from salsa.models.trained import Trained
from salsa.ppo.models import Models, Prompt
from salsa.ppo.samplers import TransformersSampler
from salsa.ppo.trainer import Training, train

# Two different tokens: attention over equal ones does not tell their number, and [2] and [2, 2] would be one state.
PAD, EOS, PROMPT, VOCABULARY = 0, 1, [2, 3], 5
# Every response of at most two tokens.
RESPONSES = [[EOS]] + [[a, b] for a in range(VOCABULARY) if a != EOS for b in range(VOCABULARY)]
BETA = 0.5
SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
IDS = {"vocab_size": VOCABULARY, "pad_token_id": PAD, "eos_token_id": EOS, "bos_token_id": 2}


def network(seed: int, reward: bool = False):
    torch.manual_seed(seed)
    if reward:
        return LlamaForSequenceClassification(LlamaConfig(**SIZES, **IDS, num_labels=1)).eval()
    # Far enough from uniform that references differ; no response so rare that sampling would not find it.
    return LlamaForCausalLM(LlamaConfig(**SIZES, **IDS, initializer_range=0.15)).eval()


@torch.no_grad()
def distribution(model) -> torch.Tensor:
    """Log-probabilities [21] of all responses; they sum to 1."""
    sequences = Sequences.build([PROMPT] * len(RESPONSES), RESPONSES)
    tokens = log_probs(model, sequences, 1.0).split([len(response) for response in RESPONSES])
    found = torch.stack([part.sum() for part in tokens])
    assert found.exp().sum().item() == pytest.approx(1, abs=1e-4)
    return found


def divergence(p: torch.Tensor, q: torch.Tensor) -> float:
    """KL(p || q) in nats, from log-probabilities."""
    return (p.exp() * (p - q)).sum().item()


@pytest.fixture(scope="module")
def references(tmp_path_factory):
    """SFT 1, and its soup with another model, loaded from disk as in the stage."""
    folder = tmp_path_factory.mktemp("known")
    for seed in (1, 2):
        network(seed).save_pretrained(folder / str(seed))
    (folder / "soup").mkdir()
    soup({folder / "1": 0.5, folder / "2": 0.5}, folder / "soup")
    names = {"sft": "1", "other": "2", "soup": "soup"}
    return {name: load_causal(folder / path) for name, path in names.items()}


def reward_of() -> dict[tuple[int, ...], float]:
    """Between -0.75 and 0.75: a large reward on a rare response would test exploration instead."""
    drawn = (1.5 * torch.rand(len(RESPONSES), generator=torch.Generator().manual_seed(3)) - 0.75).tolist()
    return dict(zip(map(tuple, RESPONSES), drawn, strict=True))


MADE_OF = {"sft": (Fixed(), ["sft"]), "soup": (Fixed(), ["soup"]), "mean_kl": (MeanKl(), ["sft", "other"])}


@pytest.mark.parametrize("name", MADE_OF)
def test_ppo_converges_to_the_known_optimum(name, references):
    table = reward_of()
    rewards = torch.tensor(list(table.values()))
    optimum = {
        key: (strategy.combine([distribution(references[part]) for part in parts]) + rewards / BETA).log_softmax(0)
        for key, (strategy, parts) in MADE_OF.items()
    }
    assert divergence(optimum["sft"], optimum["soup"]) > 0.1, "the two optima have to differ"
    strategy, parts = MADE_OF[name]

    def reward(prompts, answers, batches):
        return [table[tuple(answer.token_ids)] for answer in answers]

    settings = Ppo.model_validate(
        {
            "prompts": {"path": "unused"},
            "steps": 80,
            "rollout_batch_size": 256,
            "train_batch_size": 256,
            "epochs": 2,
            "learning_rate": 1e-3,
            "value_learning_rate": 3e-3,
            "beta": BETA,
            "missing_eos_penalty": 0,
            "max_prompt_length": 2,
            "max_new_tokens": 2,
        }
    )
    policy = network(1)
    frozen = {key: FrozenOnDevice(model) for key, model in references.items()}
    models = Models(
        tokenizer=SimpleNamespace(pad_token_id=PAD, eos_token_id=EOS),
        policy=Trained(policy),
        value=Trained(network(4, reward=True)),
        references=[frozen[part] for part in parts],
        strategy=strategy,
        sft=frozen["sft"],
        reward=reward,
        normalisation=(0.0, 1.0),
    )
    before = divergence(distribution(policy), optimum[name])
    sampler = TransformersSampler(models.tokenizer, settings)
    train(Training(models, sampler, [Prompt([], PROMPT)] * 4, settings, seed=1, rl_seed=1, gold=False))
    found = distribution(policy)
    assert divergence(found, optimum[name]) < 0.005 < 0.02 * before
    for other in optimum.keys() - {name}:
        assert divergence(found, optimum[other]) > 0.03
