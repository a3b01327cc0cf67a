"""The same case computed by TRL 1.11's own PPOTrainer, as recorded by `make trl`.

TRL places the score one position after EOS and keeps the value there. With these two lines changed
(benchmarks/trl_record.py), all figures agree. Unchanged, log-probabilities, values, KL and scores still do.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks import trl_case as case
from salsa.algorithms import ppo
from salsa.algorithms.math import gae, token_rewards
from salsa.config.algorithms import PpoSettings
from salsa.lora.layers import insert
from salsa.lora.shared import FrozenAdapter, TrainedAdapter, with_head
from salsa.models.frozen import Frozen, FrozenOnDevice
from salsa.models.sampling import Answer
from salsa.models.trained import Trained
from salsa.rollouts.estimates import k1
from salsa.rollouts.experience import Experience, experience
from salsa.rollouts.models import Models
from salsa.rollouts.rewards import Prompt, RewardModel

RECORDED = json.loads((Path(__file__).parent / "trl_1_11.json").read_text())
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@dataclass(frozen=True)
class Case:
    """The algorithm, its settings, and what it computed of the responses."""

    algorithm: ppo.Ppo
    settings: PpoSettings
    experience: Experience
    targets: ppo.Targets


@pytest.fixture(scope="module")
def ours() -> Case:
    """The case with whole models."""
    networks = case.models()
    reference, reward = (FrozenOnDevice(networks.pop(name)) for name in ("reference", "reward"))
    trained = {name: Trained(network) for name, network in networks.items()}
    return computed(reference, reward, **trained)


@pytest.fixture(scope="module")
def with_lora() -> Case:
    """The case with LoRA: all models are adapters on one base in memory."""
    base = case.base().requires_grad_(False)
    for name, phase in case.PHASES.items():
        insert(base, name, case.adapter(phase), case.ALPHA / case.RANK)
    value, reward = (with_head(base, case.head(case.PHASES[name])) for name in ("value", "reward"))
    return computed(
        FrozenAdapter(base, ["reference"], "float32"),
        FrozenAdapter(reward, ["reward"], "float32"),
        policy=TrainedAdapter(base, "float32", ["policy"], "policy"),
        value=TrainedAdapter(value, "float32", ["value"], "value"),
    )


def computed(reference: Frozen, reward: Frozen, policy: Trained, value: Trained) -> Case:
    """The case with the given models."""
    count = len(case.PROMPTS)
    shape = {"steps": 1, "rollout_batch_size": count, "train_batch_size": count, "micro_batch_size": 2}
    limits = {"max_prompt_length": 8, "max_new_tokens": case.NEW_TOKENS, "max_grad_norm": 1e9, "schedule": "constant"}
    rates = {"value_learning_rate": case.SETTINGS["learning_rate"]}
    settings = PpoSettings.model_validate({**shape, **limits, **rates, **case.SETTINGS})
    scorer = RewardModel(reward, 0.0, 1.0)
    models = Models(
        tokenizer=SimpleNamespace(pad_token_id=case.PAD, eos_token_id=case.EOS),
        references=[reference],
        sft=reference,
        reward=scorer,
        normalisation=(0.0, 1.0),
        policy=policy,
    )
    prompts = [Prompt([], ids) for ids in case.PROMPTS]
    answers = [Answer(ids, ids[-1] == case.EOS, [0.0] * len(ids)) for ids in case.RESPONSES]
    found = experience(models, prompts, answers, settings)
    algorithm = ppo.Ppo(models, value, settings)
    with torch.no_grad():
        return Case(algorithm, settings, found, algorithm.targets(found)[0])


@pytest.mark.parametrize(("fixture", "run"), [("ours", "adapted"), ("ours", "unchanged"), ("with_lora", "lora")])
def test_log_probs_values_kl_and_scores_equal_trls(fixture, run, request):
    computed = request.getfixturevalue(fixture)
    rollout = computed.experience
    pairs = {
        "logprobs": rollout.log_probs,
        "ref_logprobs": rollout.reference,
        "kl": k1(rollout.log_probs, rollout.reference),
        "scores": rollout.penalised,
        "values": computed.targets.values,
    }
    for name, found in pairs.items():
        assert torch.allclose(found, torch.tensor(RECORDED[run][name]), **CLOSE), name


def test_rewards_advantages_and_returns_equal_trls(ours):
    settings, rollout, targets = ours.settings, ours.experience, ours.targets
    kl = k1(rollout.log_probs, rollout.reference)
    rewards = token_rewards(kl, rollout.penalised, rollout.mask, settings.beta)
    _, returns = gae(rewards, targets.values, rollout.mask, settings.gamma, settings.lam)
    pairs = {"rewards": rewards, "advantages": targets.advantages, "returns": returns}
    for name, found in pairs.items():
        assert torch.allclose(found, torch.tensor(RECORDED["adapted"][name]), **CLOSE), name
    assert torch.equal(returns, targets.returns)


def test_differences_are_as_documented(ours):
    """Unchanged, TRL gives a response with EOS its score one token later, which shifts its advantages."""
    unchanged = torch.tensor(RECORDED["unchanged"]["rewards"])
    adapted = torch.tensor(RECORDED["adapted"]["rewards"])
    for row, response in enumerate(case.RESPONSES):
        last, score = len(response) - 1, ours.experience.penalised[row].item()
        if response[-1] == case.EOS and last + 1 < case.NEW_TOKENS:
            assert unchanged[row, last + 1].item() == pytest.approx(score, abs=1e-5)
            assert (adapted - unchanged)[row, last].item() == pytest.approx(score, abs=1e-5)
        else:
            assert torch.equal(adapted[row], unchanged[row])
    assert not torch.allclose(ours.targets.advantages, torch.tensor(RECORDED["unchanged"]["advantages"]), atol=1e-3)


@pytest.mark.parametrize(("fixture", "run"), [("ours", "adapted"), ("with_lora", "lora")])
def test_losses_equal_trls_in_each_epoch(fixture, run, request):
    """Losses, gradients and Adam: an error in any would change the next epoch's losses."""
    computed = request.getfixturevalue(fixture)
    rows = list(range(len(case.PROMPTS)))
    found = [
        computed.algorithm.update(computed.experience, computed.targets, rows) for _ in range(computed.settings.epochs)
    ]
    losses = [[metrics["loss_policy"], metrics["loss_value"]] for metrics in found]
    assert torch.allclose(torch.tensor(losses), torch.tensor(RECORDED[run]["losses"]), rtol=1e-3, atol=1e-4)
    assert found[-1]["clip_fraction_policy"] > 0.1 and found[-1]["clip_fraction_value"] > 0.1
