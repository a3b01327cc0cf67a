"""Metrics of a rollout, and checks that stop a run that went wrong. docs/metrics.md explains each metric."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from salsa.config.algorithms import RlSettings
from salsa.data.rows import user_turns
from salsa.rollouts.estimates import k1, k3, masked_mean
from salsa.rollouts.experience import Experience
from salsa.rollouts.models import Models
from salsa.runtime.errors import UserError
from salsa.world.gold import gold_reward

Metrics = dict[str, Any]
MAX_SAMPLER_GAP = 0.2  # nats per token; ten times bfloat16's rounding


def per_response(figures: Tensor, mask: Tensor) -> float:
    """Sum figures [B, T] over the tokens of each response, then average over responses."""
    return torch.where(mask, figures, 0.0).sum(1).mean().item()


def rollout_metrics(experience: Experience, models: Models, beta: float, gold: bool) -> Metrics:
    """Metrics of the sampled responses, before the update. `gold` adds the mini world's gold reward."""
    mask, lengths = experience.mask, experience.mask.sum(1).float()
    kl = per_response(k1(experience.log_probs, experience.reference), mask)
    golds = [
        gold_reward(
            user_turns(prompt.messages),
            models.tokenizer.decode(answer.token_ids, skip_special_tokens=True),
            answer.ended,
        )
        for prompt, answer in zip(experience.prompts, experience.answers, strict=True)
        if gold
    ]
    return {
        "reward": experience.scores.mean().item(),
        "objective": experience.penalised.mean().item() - beta * kl,
        "kl_ref_k1": kl,
        "kl_ref_k3": per_response(k3(experience.log_probs, experience.reference), mask),
        "kl_sft_k1": per_response(k1(experience.log_probs, experience.sft), mask),
        "kl_sft_k3": per_response(k3(experience.log_probs, experience.sft), mask),
        "sampler_gap": masked_mean((experience.sampled - experience.log_probs).abs(), mask).item(),
        "entropy": masked_mean(experience.entropy, mask).item(),
        "length": lengths.mean().item(),
        "eos_share": sum(answer.ended for answer in experience.answers) / len(experience.answers),
        "gold": sum(golds) / len(golds) if golds else None,
    }


def mean_of(updates: Sequence[Metrics]) -> Metrics:
    """Average each metric over several updates."""
    return {name: sum(metrics[name] for metrics in updates) / len(updates) for name in updates[0]}


def check_rollout(experience: Experience, metrics: Metrics, settings: RlSettings) -> None:
    """Raise a UserError if all responses are empty, the sampler is off the policy, or the KL exceeds `max_kl`."""
    if all(answer.ended and len(answer.token_ids) == 1 for answer in experience.answers):
        raise UserError(
            "all responses are empty: lower ppo.learning_rate or raise ppo.beta; if this is the first step, check the "
            "checkpoint that the policy starts from"
        )
    if metrics["sampler_gap"] > MAX_SAMPLER_GAP:
        raise UserError(
            f"the sampler's log-probabilities differ from the trainer's by {metrics['sampler_gap']:.2g} nats per token "
            f"(rounding gives less than {MAX_SAMPLER_GAP}): the responses are not from the policy. Use the other "
            "engine (ppo.rollout), and report this"
        )
    if settings.max_kl is not None and metrics["kl_ref_k1"] > settings.max_kl:
        raise UserError(
            f"the KL to the reference is {metrics['kl_ref_k1']:.4g} nats per response, above ppo.max_kl "
            f"{settings.max_kl:g}: lower ppo.learning_rate, raise ppo.beta, or raise ppo.max_kl"
        )
