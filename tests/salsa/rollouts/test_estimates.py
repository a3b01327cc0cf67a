"""KL estimators, compared with exact sums."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from salsa.rollouts.estimates import k1, k3

PROPERTY = settings(max_examples=60, deadline=None, derandomize=True)
finite = st.floats(-5, 5, width=32)


def test_k1_and_k3_are_unbiased_for_the_kl():
    """Exactly: summed over all tokens with their probabilities."""
    p, q = (torch.randn(6, generator=torch.Generator().manual_seed(seed)).log_softmax(0) for seed in (1, 2))
    kl = (p.exp() * (p - q)).sum().item()
    assert (p.exp() * k1(p, q)).sum().item() == pytest.approx(kl, abs=1e-6)
    assert (p.exp() * k3(p, q)).sum().item() == pytest.approx(kl, abs=1e-6)
    assert (k3(p, q) >= 0).all()
    assert not k1(p, p).any()
    assert not k3(p, p).any()


@PROPERTY
@given(st.lists(finite, min_size=2, max_size=8), st.lists(finite, min_size=2, max_size=8))
def test_k3_is_never_negative_and_both_are_exact_in_expectation(left, right):
    size = min(len(left), len(right))
    p, q = (torch.tensor(part[:size], dtype=torch.float64).log_softmax(0) for part in (left, right))
    kl = (p.exp() * (p - q)).sum().item()
    assert (k3(p, q) >= 0).all()
    assert (p.exp() * k1(p, q)).sum().item() == pytest.approx(kl, abs=1e-9)
    assert (p.exp() * k3(p, q)).sum().item() == pytest.approx(kl, abs=1e-9)


@pytest.mark.parametrize("corrected", [True, False])
def test_gradient_of_k3_is_that_of_one_of_both_divergences(corrected):
    """Exactly: summed over all tokens with the probabilities with which they were drawn."""
    logits, reference = (torch.randn(6, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    logits.requires_grad_()
    new, reference = logits.log_softmax(0), reference.log_softmax(0)
    old = new.detach()
    losses = k3(new, reference) * ((new - old).exp() if corrected else 1)
    [found] = torch.autograd.grad((old.exp() * losses).sum(), logits, retain_graph=True)
    divergence = (new.exp() * (new - reference)) if corrected else (reference.exp() * (reference - new))
    [expected] = torch.autograd.grad(divergence.sum(), logits)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
