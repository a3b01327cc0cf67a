"""The same case computed by TRL 1.11's own PPOTrainer, as recorded by `make trl`.

TRL places the score one position after EOS and keeps the value there. With these two lines changed
(benchmarks/trl_record.py), all figures agree. Unchanged, log-probabilities, values, KL and scores still do.
"""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks import trl_case as case
from salsa.config.sections import Ppo
from salsa.lora.layers import insert
from salsa.lora.shared import FrozenAdapter, TrainedAdapter, with_head
from salsa.models.frozen import Frozen, FrozenOnDevice
from salsa.models.sampling import Answer
from salsa.models.trained import Trained
from salsa.ppo.math import gae, k1, token_rewards
from salsa.ppo.models import Models, Prompt, RewardModel
from salsa.ppo.rollout import Rollout, experience
from salsa.ppo.trainer import make_learner, update

RECORDED = json.loads((Path(__file__).parent / "trl_1_11.json").read_text())
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(scope="module")
def ours() -> tuple[Models, Ppo, Rollout]:
    """Our models, settings and rollout of the case."""
    networks = case.models()
    reference, reward = (FrozenOnDevice(networks.pop(name)) for name in ("reference", "reward"))
    trained = {name: Trained(network) for name, network in networks.items()}
    return computed(reference, reward, **trained)


@pytest.fixture(scope="module")
def with_lora() -> tuple[Models, Ppo, Rollout]:
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


def computed(reference: Frozen, reward: Frozen, **trained: Trained) -> tuple[Models, Ppo, Rollout]:
    """Models, settings and rollout of the case, with the given models."""
    count = len(case.PROMPTS)
    shape = {"steps": 1, "rollout_batch_size": count, "train_batch_size": count, "micro_batch_size": 2}
    limits = {"max_prompt_length": 8, "max_new_tokens": case.NEW_TOKENS, "max_grad_norm": 1e9, "schedule": "constant"}
    rates = {"value_learning_rate": case.SETTINGS["learning_rate"]}
    settings = Ppo.model_validate({"prompts": {"path": "given"}, **shape, **limits, **rates, **case.SETTINGS})
    scorer = RewardModel(reward, 0.0, 1.0)
    models = Models(
        tokenizer=SimpleNamespace(pad_token_id=case.PAD, eos_token_id=case.EOS),
        references=[reference],
        sft=reference,
        reward=scorer,
        normalisation=(0.0, 1.0),
        **trained,
    )
    prompts = [Prompt([], ids) for ids in case.PROMPTS]
    answers = [Answer(ids, ids[-1] == case.EOS, [0.0] * len(ids)) for ids in case.RESPONSES]
    return models, settings, experience(models, prompts, answers, settings)


@pytest.mark.parametrize(("fixture", "run"), [("ours", "adapted"), ("ours", "unchanged"), ("with_lora", "lora")])
def test_log_probs_values_kl_and_scores_equal_trls(fixture, run, request):
    _, _, rollout = request.getfixturevalue(fixture)
    pairs = {
        "logprobs": rollout.log_probs,
        "ref_logprobs": rollout.reference,
        "kl": k1(rollout.log_probs, rollout.reference),
        "scores": rollout.penalised,
    }
    for name, found in pairs.items():
        assert torch.allclose(found, torch.tensor(RECORDED[run][name]), **CLOSE), name
    assert torch.allclose(rollout.values, torch.tensor(RECORDED[run]["values"]), **CLOSE)


def test_rewards_advantages_and_returns_equal_trls(ours):
    _, settings, rollout = ours
    kl = k1(rollout.log_probs, rollout.reference)
    rewards = token_rewards(kl, rollout.penalised, rollout.mask, settings.beta)
    _, returns = gae(rewards, rollout.values, rollout.mask, settings.gamma, settings.lam)
    pairs = {"rewards": rewards, "advantages": rollout.advantages, "returns": returns}
    for name, found in pairs.items():
        assert torch.allclose(found, torch.tensor(RECORDED["adapted"][name]), **CLOSE), name
    assert torch.equal(returns, rollout.returns)


def test_differences_are_as_documented(ours):
    """Unchanged, TRL gives a response with EOS its score one token later, which shifts its advantages."""
    _, _, rollout = ours
    unchanged = torch.tensor(RECORDED["unchanged"]["rewards"])
    adapted = torch.tensor(RECORDED["adapted"]["rewards"])
    for row, response in enumerate(case.RESPONSES):
        last, score = len(response) - 1, rollout.penalised[row].item()
        if response[-1] == case.EOS and last + 1 < case.NEW_TOKENS:
            assert unchanged[row, last + 1].item() == pytest.approx(score, abs=1e-5)
            assert (adapted - unchanged)[row, last].item() == pytest.approx(score, abs=1e-5)
        else:
            assert torch.equal(adapted[row], unchanged[row])
    assert not torch.allclose(rollout.advantages, torch.tensor(RECORDED["unchanged"]["advantages"]), atol=1e-3)


@pytest.mark.parametrize(("fixture", "run"), [("ours", "adapted"), ("with_lora", "lora")])
def test_losses_equal_trls_in_each_epoch(fixture, run, request):
    """Losses, gradients and Adam: an error in any would change the next epoch's losses."""
    models, settings, rollout = request.getfixturevalue(fixture)
    updates = settings.epochs
    policy = make_learner(models.policy, settings.learning_rate, settings, updates)
    value = make_learner(models.value, settings.value_learning_rate, settings, updates)
    rows = list(range(len(case.PROMPTS)))
    found = [update(models, policy, value, rollout, rows, settings) for _ in range(updates)]
    losses = [[metrics["loss_policy"], metrics["loss_value"]] for metrics in found]
    assert torch.allclose(torch.tensor(losses), torch.tensor(RECORDED[run]["losses"]), rtol=1e-3, atol=1e-4)
    assert found[-1]["clip_fraction_policy"] > 0.1 and found[-1]["clip_fraction_value"] > 0.1
