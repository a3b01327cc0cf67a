"""The figures of a rollout, and the signs in them that a run has gone wrong. docs/metrics.md explains each."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from salsa.config.sections import Ppo
from salsa.data.rows import user_turns
from salsa.ppo.math import explained_variance, k1, k3, masked_mean
from salsa.ppo.models import Models
from salsa.ppo.rollout import Rollout
from salsa.runtime.errors import UserError
from salsa.world.gold import gold_reward

Metrics = dict[str, Any]
MAX_SAMPLER_GAP = 0.2  # nats a token: ten times what bfloat16 rounds off


def per_response(figures: Tensor, mask: Tensor) -> float:
    """The mean over responses of the sum over tokens, of figures [B, T]."""
    return torch.where(mask, figures, 0.0).sum(1).mean().item()


def rollout_metrics(rollout: Rollout, models: Models, beta: float, gold: bool) -> Metrics:
    """What the responses were like, before the update."""
    mask, lengths = rollout.mask, rollout.mask.sum(1).float()
    kl = per_response(k1(rollout.log_probs, rollout.reference), mask)
    golds = [
        gold_reward(
            user_turns(prompt.messages),
            models.tokenizer.decode(answer.token_ids, skip_special_tokens=True),
            answer.ended,
        )
        for prompt, answer in zip(rollout.prompts, rollout.answers, strict=True)
        if gold
    ]
    return {
        "reward": rollout.scores.mean().item(),
        "objective": rollout.penalised.mean().item() - beta * kl,
        "kl_ref_k1": kl,
        "kl_ref_k3": per_response(k3(rollout.log_probs, rollout.reference), mask),
        "kl_sft_k1": per_response(k1(rollout.log_probs, rollout.sft), mask),
        "kl_sft_k3": per_response(k3(rollout.log_probs, rollout.sft), mask),
        "sampler_gap": masked_mean((rollout.sampled - rollout.log_probs).abs(), mask).item(),
        "entropy": masked_mean(rollout.entropy, mask).item(),
        "length": lengths.mean().item(),
        "eos_share": sum(answer.ended for answer in rollout.answers) / len(rollout.answers),
        "explained_variance": explained_variance(rollout.values, rollout.returns, mask).item(),
        "gold": sum(golds) / len(golds) if golds else None,
    }


def mean_of(found: Sequence[Metrics]) -> Metrics:
    return {name: sum(metrics[name] for metrics in found) / len(found) for name in found[0]}


def check_rollout(rollout: Rollout, metrics: Metrics, settings: Ppo) -> None:
    """A UserError where there is nothing to learn from: no responses, or not the policy's own; and where the policy is
    further away than it may be."""
    if all(answer.ended and len(answer.token_ids) == 1 for answer in rollout.answers):
        raise UserError(
            "all responses are empty: lower ppo.learning_rate or raise ppo.beta; if this is the first step, look at "
            "what the policy starts from"
        )
    if metrics["sampler_gap"] > MAX_SAMPLER_GAP:
        raise UserError(
            f"the sampler's log-probabilities are {metrics['sampler_gap']:.2g} nats a token off the trainer's, where "
            f"rounding makes less than {MAX_SAMPLER_GAP}: the responses are not the policy's. Take the other engine "
            "(ppo.rollout), and report this"
        )
    if settings.max_kl is not None and metrics["kl_ref_k1"] > settings.max_kl:
        raise UserError(
            f"the KL to the reference is {metrics['kl_ref_k1']:.4g} nats a response, above ppo.max_kl "
            f"{settings.max_kl:g}: lower ppo.learning_rate, raise ppo.beta, or raise the bound"
        )
