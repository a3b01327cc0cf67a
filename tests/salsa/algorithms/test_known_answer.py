"""A case with a known answer: with few responses the KL-regularised optimum can be written down.

maximise E_pi[r] - beta KL(pi || ref)  has the one solution  pi*(y) = ref(y) exp(r(y) / beta) / Z.
"""

from types import SimpleNamespace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

from salsa.alignment.training import Training, make_algorithm, train
from salsa.checkpoints.loading import load_causal
from salsa.config.algorithms import GrpoSettings, PpoSettings, RlooSettings, RlSettings
from salsa.config.references import Fixed, MeanKl
from salsa.models.frozen import FrozenOnDevice
from salsa.models.responses import Sequences, log_probs
from salsa.models.trained import Trained
from salsa.rollouts.models import Models
from salsa.rollouts.rewards import Prompt
from salsa.rollouts.samplers import TransformersSampler
from salsa.soups.soup import soup

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
GROUP = 8
SHARED = {
    "steps": 80,
    "rollout_batch_size": 256,
    "train_batch_size": 256,
    "epochs": 2,
    "learning_rate": 1e-3,
    "beta": BETA,
    "missing_eos_penalty": 0,
    "max_prompt_length": 2,
    "max_new_tokens": 2,
}


def trained(settings: RlSettings, name: str, references, table) -> tuple[torch.Tensor, torch.Tensor]:
    """Distributions of the responses before and after training."""
    strategy, parts = MADE_OF[name]

    def reward(prompts, answers, batches):
        return [table[tuple(answer.token_ids)] for answer in answers]

    policy = network(1)
    frozen = {key: FrozenOnDevice(model) for key, model in references.items()}
    models = Models(
        tokenizer=SimpleNamespace(pad_token_id=PAD, eos_token_id=EOS),
        policy=Trained(policy),
        references=[frozen[part] for part in parts],
        strategy=strategy,
        sft=frozen["sft"],
        reward=reward,
        normalisation=(0.0, 1.0),
    )
    before = distribution(policy)
    sampler = TransformersSampler(models.tokenizer, settings)
    algorithm = make_algorithm(models, settings, lambda: Trained(network(4, reward=True)))
    prompts = [Prompt([], PROMPT)] * 4
    train(Training(algorithm, models, sampler, prompts, settings, seed=1, rl_seed=1, gold=False))
    return before, distribution(policy)


ALGORITHMS = {
    "ppo": PpoSettings(**SHARED, value_learning_rate=3e-3),
    "rloo": RlooSettings(**SHARED, responses_per_prompt=GROUP),
    "reinforce": RlooSettings(**SHARED, responses_per_prompt=1, baseline="batch"),
}


@pytest.mark.parametrize(
    ("algorithm", "name"), [*(("ppo", name) for name in MADE_OF), ("rloo", "soup"), ("reinforce", "sft")]
)
def test_converges_to_the_known_optimum(algorithm, name, references):
    """PPO, RLOO and REINFORCE have the KL in the reward, and so one optimum."""
    table = reward_of()
    rewards = torch.tensor(list(table.values()))
    optimum = {
        key: (strategy.combine([distribution(references[part]) for part in parts]) + rewards / BETA).log_softmax(0)
        for key, (strategy, parts) in MADE_OF.items()
    }
    assert divergence(optimum["sft"], optimum["soup"]) > 0.1, "the two optima have to differ"
    before, found = trained(ALGORITHMS[algorithm], name, references, table)
    assert divergence(found, optimum[name]) < 0.005 < 0.02 * divergence(before, optimum[name])
    for other in optimum.keys() - {name}:
        assert divergence(found, optimum[other]) > 0.03


def reverse_kl(reference: torch.Tensor, gains: torch.Tensor) -> torch.Tensor:
    """argmax of E_pi[gains] - beta KL(pi || ref) over distributions of one token."""
    return (reference.log() + gains / BETA).softmax(0)


def forward_kl(reference: torch.Tensor, gains: torch.Tensor) -> torch.Tensor:
    """argmax of E_pi[gains] - beta KL(ref || pi): beta ref / (level - gains), with the level that makes it sum to 1."""
    low, high = gains.max().item(), gains.max().item() + BETA
    for _ in range(60):
        level = (low + high) / 2
        low, high = (level, high) if (BETA * reference / (level - gains)).sum() > 1 else (low, level)
    return BETA * reference / (level - gains)


@pytest.mark.parametrize(("corrected", "best"), [(True, reverse_kl), (False, forward_kl)])
def test_grpo_converges_to_its_own_optimum(corrected, best, references):
    """Token by token: a token is charged for its own KL, not for that of tokens after it. The response's own share of
    its group's mean shrinks rewards by 1 - 1 / group."""
    table = reward_of()
    reference = distribution(references["soup"]).exp()
    worth = (1 - 1 / GROUP) * torch.tensor(list(table.values()))
    optimum, first, gains = torch.empty_like(reference), [], []
    for begin in range(1, len(RESPONSES), VOCABULARY):
        rows = slice(begin, begin + VOCABULARY)  # responses with one first token
        second = best(reference[rows] / reference[rows].sum(), worth[rows])
        optimum[rows] = second
        first.append(reference[rows].sum())
        gains.append(second @ worth[rows])
    start = best(torch.stack([reference[0], *first]), torch.stack([worth[0], *gains]))
    optimum[0] = start[0]
    optimum[1:] *= start[1:].repeat_interleave(VOCABULARY)
    settings = GrpoSettings(**SHARED, responses_per_prompt=GROUP, scale="none", corrected_kl=corrected)
    before, found = trained(settings, "soup", references, table)
    assert divergence(found, optimum.log()) < 0.005 < 0.02 * divergence(before, optimum.log())
    wrong = (reference.log() + torch.tensor(list(table.values())) / BETA).log_softmax(0)
    assert divergence(found, wrong) > 0.01
