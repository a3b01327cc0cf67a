"""The mathematics of PPO, RLOO and GRPO from human feedback, as pure functions.

Shapes: B responses, T response positions (right-padded). Log-probabilities, entropies and KL are in nats. A mask is
True at real response tokens, including EOS. All computations are float32, whatever the models' dtype.

Omitted on purpose: reward whitening, an adaptive beta and an entropy bonus (reasons in docs/protocol.md).
"""

import torch
from torch import Tensor
from torch.nn import functional

from salsa.rollouts.estimates import masked_mean, masked_variance


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


def leave_one_out(rewards: Tensor, group: int) -> Tensor:
    """Advantages [B]: each reward minus the mean of the others of its group of `group` responses, which lie together.

    The baseline does not depend on the response, so the gradient is unbiased. Kool et al. 2019; RLOO, Ahmadian et al.
    2024.
    """
    grouped = rewards.view(-1, group)
    others = (grouped.sum(1, keepdim=True) - grouped) / (group - 1)
    return (grouped - others).flatten()


def group_relative(rewards: Tensor, group: int, scaled: bool, eps: float = 1e-4) -> Tensor:
    """Advantages [B]: each reward minus the mean of its group, over the group's standard deviation if `scaled`.

    The mean includes the response itself, which shrinks the expected gradient by 1 - 1 / group. `eps` keeps a group
    with equal rewards at 0. GRPO, Shao et al. 2024; without scaling Dr. GRPO, Liu et al. 2025.
    """
    grouped = rewards.view(-1, group)
    centred = grouped - grouped.mean(1, keepdim=True)
    return (centred / (grouped.std(1, keepdim=True) + eps) if scaled else centred).flatten()
