"""The formulas against explicit sums, exact enumeration and known answers."""

import itertools
import math

import pytest
import torch

from salsa.ppo.math import (
    entropy,
    explained_variance,
    gae,
    k1,
    k3,
    policy_losses,
    token_log_probs,
    token_rewards,
    value_losses,
    whiten,
)

MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]], dtype=torch.bool)


def draws(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = MASK.shape
    return torch.randn(shape, generator=generator) * MASK, torch.randn(shape, generator=generator) * MASK


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.5), (1.0, 1.0), (0.9, 0.0)])
def test_gae_is_the_weighted_sum_of_its_deltas(gamma, lam):
    """A_t = sum over l of (gamma lam)^l delta_{t+l}, row by row, with nothing after the last real token."""
    rewards, values = draws()
    advantages, returns = gae(rewards, values, MASK, gamma, lam)
    for row, length in enumerate(MASK.sum(1).tolist()):
        r, v = rewards[row, :length].tolist(), [*values[row, :length].tolist(), 0.0]
        deltas = [r[t] + gamma * v[t + 1] - v[t] for t in range(length)]
        for t in range(length):
            expected = sum((gamma * lam) ** (s - t) * deltas[s] for s in range(t, length))
            assert advantages[row, t].item() == pytest.approx(expected, abs=1e-5)
            assert returns[row, t].item() == pytest.approx(expected + v[t], abs=1e-5)
    assert not advantages[~MASK].any()


def test_gae_with_lambda_1_is_reward_to_go_less_the_value():
    rewards, values = draws(1)
    advantages, returns = gae(rewards, values, MASK, 1.0, 1.0)
    to_go = rewards.flip(1).cumsum(1).flip(1)
    assert torch.allclose(returns[MASK], to_go[MASK], atol=1e-5)
    assert torch.allclose(advantages[MASK], (to_go - values)[MASK], atol=1e-5)


def test_values_outside_the_mask_change_nothing():
    rewards, values = draws()
    noisy = torch.where(MASK, values, 1e3)
    assert torch.equal(gae(rewards, values, MASK, 1.0, 0.95)[0], gae(rewards, noisy, MASK, 1.0, 0.95)[0])


def test_k1_and_k3_are_unbiased_for_the_kl():
    """Exactly: summed over all tokens with their probabilities."""
    p, q = (torch.randn(6, generator=torch.Generator().manual_seed(seed)).log_softmax(0) for seed in (1, 2))
    kl = (p.exp() * (p - q)).sum().item()
    assert (p.exp() * k1(p, q)).sum().item() == pytest.approx(kl, abs=1e-6)
    assert (p.exp() * k3(p, q)).sum().item() == pytest.approx(kl, abs=1e-6)
    assert (k3(p, q) >= 0).all()
    assert not k1(p, p).any()
    assert not k3(p, p).any()


def test_rewards_add_up_to_score_less_beta_times_kl_and_the_score_stands_on_the_last_real_token():
    kl, _ = draws()
    scores = torch.tensor([1.0, -2.0, 0.5])
    rewards = token_rewards(kl, scores, MASK, beta=0.3)
    assert torch.allclose(rewards.sum(1), scores - 0.3 * kl.sum(1), atol=1e-6)
    assert not rewards[~MASK].any()
    without = token_rewards(kl, torch.zeros(3), MASK, beta=0.3)
    where = (rewards - without).nonzero().tolist()
    assert where == [[0, 3], [1, 1], [2, 0]]


def test_whitening_is_over_real_tokens_alone():
    values, _ = draws(2)
    found = whiten(torch.where(MASK, values * 7 + 3, 99.0), MASK)
    assert found[MASK].mean().item() == pytest.approx(0, abs=1e-6)
    assert found[MASK].std().item() == pytest.approx(1, abs=1e-4)
    assert not found[~MASK].any()


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "active"),
    [(1.5, 1, -1.2, True), (0.5, 1, -0.5, False), (1.5, -1, 1.5, False), (0.5, -1, 0.8, True), (1.1, 2, -2.2, False)],
)
def test_the_policy_clip_only_ever_makes_the_objective_worse(ratio, advantage, loss, active):
    found, clipped = policy_losses(
        torch.tensor([math.log(ratio)]), torch.zeros(1), torch.tensor([float(advantage)]), clip=0.2
    )
    assert found.item() == pytest.approx(loss, abs=1e-6)
    assert clipped.item() == active


def test_the_value_clip_takes_the_larger_error():
    new, old = torch.tensor([2.0, 0.1]), torch.zeros(2)
    found, clipped = value_losses(new, old, torch.tensor([3.0, 0.0]), clip=0.2)
    assert found.tolist() == pytest.approx([0.5 * 2.8**2, 0.5 * 0.1**2])
    assert clipped.tolist() == [True, False]


def test_explained_variance():
    returns, other = draws(3)
    assert explained_variance(returns, returns, MASK).item() == pytest.approx(1)
    assert explained_variance(torch.zeros_like(returns), returns, MASK).item() == pytest.approx(0, abs=1e-6)
    assert explained_variance(other, torch.ones_like(other), MASK).item() == 0


def test_log_probs_and_entropy_of_a_small_vocabulary():
    head = torch.nn.Linear(4, 5)
    hidden, tokens = torch.randn(7, 4), torch.arange(7) % 5
    expected = (head(hidden) / 0.7).log_softmax(-1)
    assert torch.allclose(token_log_probs(hidden, tokens, head, 0.7), expected[range(7), tokens], atol=1e-6)
    exact = torch.tensor([-sum(p * math.log(p) for p in row) for row in expected.exp().tolist()])
    assert torch.allclose(entropy(expected), exact, atol=1e-5)
    assert entropy(torch.tensor([0.0, -math.inf])).item() == 0


def test_chunks_change_neither_log_probs_nor_gradients():
    head = torch.nn.Linear(4, 5)
    found = []
    for chunk in (None, 2):
        hidden = torch.arange(28.0).view(7, 4).sin().requires_grad_()
        head.zero_grad()
        logs = token_log_probs(hidden, torch.arange(7) % 5, head, chunk=chunk)
        logs.square().sum().backward()
        found.append((logs.detach(), hidden.grad, head.weight.grad.clone()))
    for a, b in itertools.pairwise(found):
        assert all(torch.allclose(x, y, atol=1e-6) for x, y in zip(a, b, strict=True))
