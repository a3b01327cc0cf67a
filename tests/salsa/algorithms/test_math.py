"""The formulas, compared with explicit sums, exact enumeration and known answers."""

import itertools
import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from salsa.algorithms.math import (
    explained_variance,
    gae,
    group_relative,
    leave_one_out,
    policy_losses,
    token_rewards,
    value_losses,
    whiten,
)
from salsa.models.responses import entropy, token_log_probs

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


def test_gae_with_lambda_1_is_reward_to_go_minus_value():
    rewards, values = draws(1)
    advantages, returns = gae(rewards, values, MASK, 1.0, 1.0)
    to_go = rewards.flip(1).cumsum(1).flip(1)
    assert torch.allclose(returns[MASK], to_go[MASK], atol=1e-5)
    assert torch.allclose(advantages[MASK], (to_go - values)[MASK], atol=1e-5)


def test_values_outside_the_mask_change_nothing():
    rewards, values = draws()
    noisy = torch.where(MASK, values, 1e3)
    assert torch.equal(gae(rewards, values, MASK, 1.0, 0.95)[0], gae(rewards, noisy, MASK, 1.0, 0.95)[0])


def test_rewards_sum_to_score_minus_beta_kl_with_the_score_on_the_last_token():
    kl, _ = draws()
    scores = torch.tensor([1.0, -2.0, 0.5])
    rewards = token_rewards(kl, scores, MASK, beta=0.3)
    assert torch.allclose(rewards.sum(1), scores - 0.3 * kl.sum(1), atol=1e-6)
    assert not rewards[~MASK].any()
    without = token_rewards(kl, torch.zeros(3), MASK, beta=0.3)
    where = (rewards - without).nonzero().tolist()
    assert where == [[0, 3], [1, 1], [2, 0]]


def test_whitening_uses_only_real_tokens():
    values, _ = draws(2)
    found = whiten(torch.where(MASK, values * 7 + 3, 99.0), MASK)
    assert found[MASK].mean().item() == pytest.approx(0, abs=1e-6)
    assert found[MASK].std().item() == pytest.approx(1, abs=1e-4)
    assert not found[~MASK].any()


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "active"),
    [(1.5, 1, -1.2, True), (0.5, 1, -0.5, False), (1.5, -1, 1.5, False), (0.5, -1, 0.8, True), (1.1, 2, -2.2, False)],
)
def test_policy_clip_never_improves_the_objective(ratio, advantage, loss, active):
    found, clipped = policy_losses(
        torch.tensor([math.log(ratio)]), torch.zeros(1), torch.tensor([float(advantage)]), clip=0.2
    )
    assert found.item() == pytest.approx(loss, abs=1e-6)
    assert clipped.item() == active


def test_value_clip_takes_the_larger_error():
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


finite = st.floats(-5, 5, width=32)


@st.composite
def batches(draw) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rewards, values and mask of up to 4 responses of up to 6 tokens; values outside the mask are arbitrary."""
    lengths = draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    width = max(lengths)
    rows = st.lists(st.lists(finite, min_size=width, max_size=width), min_size=len(lengths), max_size=len(lengths))
    mask = torch.arange(width)[None] < torch.tensor(lengths)[:, None]
    return torch.tensor(draw(rows)), torch.tensor(draw(rows)), mask


PROPERTY = settings(max_examples=60, deadline=None, derandomize=True)


@PROPERTY
@given(batches(), st.floats(0, 1), st.floats(0, 1))
def test_gae_is_linear_in_rewards_and_independent_across_rows(batch, gamma, lam):
    rewards, values, mask = batch
    both, _ = gae(2 * rewards, 2 * values, mask, gamma, lam)
    single, returns = gae(rewards, values, mask, gamma, lam)
    assert torch.allclose(both, 2 * single, atol=1e-4)
    assert torch.allclose(returns[mask], (single + values)[mask], atol=1e-4)
    for row in range(len(mask)):
        length = int(mask[row].sum())
        alone, _ = gae(
            rewards[row : row + 1, :length], values[row : row + 1, :length], mask[row : row + 1, :length], gamma, lam
        )
        assert torch.allclose(alone[0], single[row, :length], atol=1e-4)


@PROPERTY
@given(batches(), st.floats(0, 2))
def test_rewards_of_a_response_sum_to_the_objective(batch, beta):
    """Sum over tokens = score - beta * (log pi - log ref), wherever the response ends."""
    kl, scores, mask = batch
    found = token_rewards(kl, scores[:, 0], mask, beta)
    assert torch.allclose(found.sum(1), scores[:, 0] - beta * (kl * mask).sum(1), atol=1e-4)


@PROPERTY
@given(batches(), st.floats(0.5, 3), finite)
def test_whitening_removes_scale_and_shift(batch, scale, shift):
    values, _, mask = batch
    found = whiten(values, mask)
    assert not found[~mask].any()
    if values[mask].numel() > 1 and values[mask].std() > 0.1:
        assert found[mask].mean().item() == pytest.approx(0, abs=1e-4)
        assert torch.allclose(whiten(scale * values + shift, mask), found, atol=1e-2)


@PROPERTY
@given(finite, finite, finite, st.floats(0.05, 0.5))
def test_clips_never_lower_a_loss_and_active_ones_have_no_gradient(new, old, advantage, clip):
    log_probs = torch.tensor([new], requires_grad=True)
    loss, active = policy_losses(log_probs, torch.tensor([old]), torch.tensor([advantage]), clip)
    unclipped = -advantage * math.exp(new - old)
    assert loss.item() >= unclipped - 1e-3 * abs(unclipped)
    [gradient] = torch.autograd.grad(loss.sum(), log_probs)
    assert (gradient.item() == 0) == (active.item() or advantage == 0)
    values = torch.tensor([new], requires_grad=True)
    error, active = value_losses(values, torch.tensor([old]), torch.tensor([advantage]), clip)
    assert error.item() >= 0.5 * (new - advantage) ** 2 - 1e-4
    [gradient] = torch.autograd.grad(error.sum(), values)
    assert not active or gradient.item() == 0


def test_leave_one_out_is_the_reward_minus_the_mean_of_the_others():
    rewards = torch.tensor([1.0, 2.0, 6.0, -1.0, 0.0, 4.0])
    assert leave_one_out(rewards, 3).tolist() == [-3.0, -1.5, 4.5, -3.0, -1.5, 4.5]
    assert leave_one_out(rewards, 6)[2].item() == pytest.approx(6 - (1 + 2 - 1 + 0 + 4) / 5)


def test_leave_one_out_gradient_is_unbiased_and_a_groups_mean_shrinks_it():
    """By enumeration of all groups of two responses of three: E[sum A grad log pi] / 2 against grad E[r]."""
    logits = torch.tensor([0.3, -0.5, 0.1], requires_grad=True)
    rewards, probabilities = torch.tensor([2.0, -1.0, 0.5]), logits.softmax(0)
    [exact] = torch.autograd.grad((probabilities * rewards).sum(), logits, retain_graph=True)
    found = {leave_one_out: torch.zeros(3), group_relative: torch.zeros(3)}
    for group in itertools.product(range(3), repeat=2):
        picked, log_probs = rewards[list(group)], logits.log_softmax(0)[list(group)]
        for estimate, options in ((leave_one_out, ()), (group_relative, (False,))):
            loss = (estimate(picked, 2, *options) * log_probs).sum() / 2
            [gradient] = torch.autograd.grad(loss, logits, retain_graph=True)
            found[estimate] += probabilities[list(group)].prod().detach() * gradient
    assert torch.allclose(found[leave_one_out], exact, atol=1e-6)
    assert torch.allclose(found[group_relative], exact / 2, atol=1e-6)


@given(st.lists(st.floats(-5, 5), min_size=3, max_size=3), st.floats(0.5, 3), st.floats(-2, 2))
def test_scaled_groups_ignore_the_unit_and_the_zero_of_rewards(drawn, unit, zero):
    rewards = torch.tensor(drawn)
    assume(rewards.std() > 0.1)
    advantages, moved = (group_relative(part, 3, scaled=True, eps=0.0) for part in (rewards, unit * rewards + zero))
    assert torch.allclose(advantages, moved, atol=1e-3)
    assert advantages.std().item() == pytest.approx(1, abs=1e-4)
    assert not group_relative(torch.full((3,), 2.0), 3, scaled=True).any()
