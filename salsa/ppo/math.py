"""The mathematics of PPO from human feedback, as pure functions.

Shapes: B responses, T response positions (right-padded), N real response tokens of a batch in row order, D hidden
size, V vocabulary. Log-probabilities, entropies and KL are in nats. A mask is True at real response tokens, including
EOS. All computations are float32, whatever the models' dtype.

Omitted on purpose: reward whitening, an adaptive beta and an entropy bonus (reasons in docs/protocol.md).
"""

import torch
from torch import Tensor
from torch.nn import functional


def k1(log_probs: Tensor, reference: Tensor) -> Tensor:
    """log pi - log ref of tokens drawn from pi: an unbiased estimator of KL(pi || ref); can be negative.

    Schulman, "Approximating KL divergence" (2020).
    """
    return log_probs - reference


def k3(log_probs: Tensor, reference: Tensor) -> Tensor:
    """r - 1 - log r with r = ref / pi: an unbiased, non-negative estimator of KL(pi || ref) with low variance near 0.

    Only for monitoring: used as a reward, its gradient is not that of the KL. Schulman, "Approximating KL divergence"
    (2020).
    """
    log_ratio = reference - log_probs
    return torch.expm1(log_ratio) - log_ratio


def token_rewards(kl: Tensor, scores: Tensor, mask: Tensor, beta: float) -> Tensor:
    """Rewards [B, T]: -beta * kl at every real token, plus the score [B] at the last one; 0 outside the mask.

    The last real token is EOS if the response ended (as in OpenRLHF and verl), else the last one before the limit.
    """
    rewards = torch.where(mask, -beta * kl, 0.0)
    return rewards.scatter_add(1, mask.sum(1, keepdim=True) - 1, scores[:, None])


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Advantages and returns [B, T] by generalised advantage estimation (Schulman et al. 2016).

    delta_t = r_t + gamma V_{t+1} - V_t;  A_t = delta_t + gamma lam A_{t+1};  return_t = A_t + V_t.
    V is 0 after the last real token: no bootstrapping, whether or not the response ended.
    """
    values = torch.where(mask, values, 0.0)
    following = functional.pad(values[:, 1:], (0, 1))
    deltas = torch.where(mask, rewards + gamma * following - values, 0.0)
    advantages = torch.empty_like(deltas)
    running = torch.zeros_like(deltas[:, 0])
    for t in range(deltas.shape[1] - 1, -1, -1):
        running = deltas[:, t] + gamma * lam * running
        advantages[:, t] = running
    return advantages, advantages + values


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean [] over the mask of values [B, T]."""
    return torch.where(mask, values, 0.0).sum() / mask.sum()


def masked_variance(values: Tensor, mask: Tensor) -> Tensor:
    """Unbiased variance [] over the mask of values [B, T]; 0 for a single value."""
    squares = torch.where(mask, (values - masked_mean(values, mask)).square(), 0.0)
    return squares.sum() / (mask.sum() - 1).clamp(min=1)


def whiten(values: Tensor, mask: Tensor, eps: float = 1e-8) -> Tensor:
    """Shift and scale values [B, T] to mean 0 and variance 1 over the mask, which spans the global batch."""
    centred = values - masked_mean(values, mask)
    return torch.where(mask, centred * torch.rsqrt(masked_variance(values, mask) + eps), 0.0)


def policy_losses(log_probs: Tensor, old: Tensor, advantages: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """PPO's clipped loss per token, and whether the clip is active (Schulman et al. 2017). All shapes are equal.

    loss = max(-A ratio, -A clamp(ratio, 1 - clip, 1 + clip)) with ratio = exp(log_probs - old).
    """
    ratio = (log_probs - old).exp()
    unclipped = -advantages * ratio
    clipped = -advantages * ratio.clamp(1 - clip, 1 + clip)
    return torch.maximum(unclipped, clipped), clipped > unclipped


def value_losses(values: Tensor, old: Tensor, returns: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """Clipped value loss per token, and whether the clip is active. All shapes are equal.

    loss = 0.5 max((V - R)^2, (clamp(V, old - clip, old + clip) - R)^2).
    """
    unclipped = (values - returns).square()
    clipped = (torch.clamp(values, old - clip, old + clip) - returns).square()
    return 0.5 * torch.maximum(unclipped, clipped), clipped > unclipped


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    """1 - Var(R - V) / Var(R) over the mask: 1 is perfect, 0 no better than a constant; 0 where R is constant."""
    variance = masked_variance(returns, mask)
    residual = masked_variance(returns - values, mask)
    return torch.where(variance > 0, 1 - residual / variance, 0.0)
