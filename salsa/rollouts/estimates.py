"""Estimators of the KL divergence, and means over real tokens, as pure functions.

Shapes: B responses, T response positions (right-padded). Log-probabilities and KL are in nats. A mask is True at real
response tokens, including EOS.
"""

import torch
from torch import Tensor


def k1(log_probs: Tensor, reference: Tensor) -> Tensor:
    """log pi - log ref of tokens drawn from pi: an unbiased estimator of KL(pi || ref); can be negative.

    Schulman, "Approximating KL divergence" (2020).
    """
    return log_probs - reference


def k3(log_probs: Tensor, reference: Tensor) -> Tensor:
    """r - 1 - log r with r = ref / pi: an unbiased, non-negative estimator of KL(pi || ref) with low variance near 0.

    As a reward its gradient is not that of the KL. As a loss its expected gradient is that of KL(ref || pi), and
    multiplied by the ratio pi / pi_old that of KL(pi || ref). Schulman, "Approximating KL divergence" (2020);
    DeepSeek-V3.2 (2025).
    """
    log_ratio = reference - log_probs
    return torch.expm1(log_ratio) - log_ratio


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean [] over the mask of values [B, T]."""
    return torch.where(mask, values, 0.0).sum() / mask.sum()


def masked_variance(values: Tensor, mask: Tensor) -> Tensor:
    """Unbiased variance [] over the mask of values [B, T]; 0 for a single value."""
    squares = torch.where(mask, (values - masked_mean(values, mask)).square(), 0.0)
    return squares.sum() / (mask.sum() - 1).clamp(min=1)
