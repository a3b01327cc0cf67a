"""The algorithm, top to bottom: sample, score, then some epochs of clipped policy and value updates.

One device; batches larger than its memory go through in micro-batches. What each metric means: docs/metrics.md.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from salsa.data import user_turns
from salsa.ppo.math import explained_variance, k1, k3, masked_mean, policy_losses, value_losses
from salsa.ppo.models import Models, Sequences, computing_in, log_probs, values
from salsa.ppo.rollout import Prompt, Rollout, collect, prompt_batches
from salsa.scoring import batches_by_length
from salsa.sections import Ppo
from salsa.seeds import derive_seed
from salsa.training import schedule, steps
from salsa.world.gold import gold_reward

Metrics = dict[str, Any]


class Learner:
    """A model with its optimiser and the factor on its learning rate."""

    def __init__(self, model: torch.nn.Module, rate: float, settings: Ppo, updates: int):
        self.model, self.limit, self.steps = model, settings.max_grad_norm, 0
        self.optimiser = torch.optim.AdamW(
            model.parameters(),
            lr=rate,
            betas=settings.adam_betas,
            eps=settings.adam_eps,
            weight_decay=0.0,
            fused=True,  # without copies of all weights, and several times as fast on a CPU
        )
        self.schedule = schedule(self.optimiser, settings.schedule, updates)

    def rate(self) -> float:
        return float(self.schedule.get_last_lr()[0])

    def step(self) -> float:
        """One update from the gradients gathered; returns their norm before it was clipped."""
        norm = clip_grad_norm_(self.model.parameters(), self.limit).item()
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.schedule.step()
        self.steps += 1
        return norm


def update(
    models: Models, policy: Learner, value: Learner, rollout: Rollout, rows: list[int], settings: Ppo
) -> Metrics:
    """One optimiser step of both models on the responses `rows`; each loss is a mean over their tokens.

    First the one, then the other: so only one model's gradients exist at a time.
    """
    pad = models.tokenizer.pad_token_id
    prompts = [rollout.prompts[i].ids for i in rows]
    responses = [rollout.answers[i].token_ids for i in rows]
    lengths = [len(prompt) + len(response) for prompt, response in zip(prompts, responses, strict=True)]
    count = sum(map(len, responses))
    batches = list(batches_by_length(lengths, settings.micro_batch_size or len(rows)))

    def policy_figures(sequences: Sequences, of: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        old = of(rollout.log_probs)
        new = log_probs(models.policy, sequences, settings.temperature)
        losses, clipped = policy_losses(new, old, of(rollout.advantages), settings.clip)
        return {"loss_policy": losses, "clip_fraction_policy": clipped, "approx_kl": k3(old, new)}

    def value_figures(sequences: Sequences, of: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        new = values(models.value, sequences, models.normalisation)
        losses, clipped = value_losses(new, of(rollout.values), of(rollout.returns), settings.value_clip)
        return {"loss_value": losses, "clip_fraction_value": clipped}

    metrics: Metrics = {}
    for name, learner, figures in (("policy", policy, policy_figures), ("value", value, value_figures)):
        sums: dict[str, Tensor] = {}
        for batch in batches:
            sequences = Sequences.of([prompts[i] for i in batch], [responses[i] for i in batch], pad)
            chosen = [rows[i] for i in batch]
            of = partial(tokens_of, chosen=chosen, mask=rollout.mask[chosen], device=sequences.ids.device)
            with computing_in(settings.dtype):
                found = figures(sequences, of)
                (found[f"loss_{name}"].sum() / count).backward()
            for key, figure in found.items():
                sums[key] = sums.get(key, 0.0) + figure.detach().float().sum()
        metrics |= {key: total.item() / count for key, total in sums.items()}
        metrics[f"grad_norm_{name}"] = learner.step()
    return metrics


def tokens_of(figures: Tensor, chosen: list[int], mask: Tensor, device: torch.device) -> Tensor:
    """Of figures [B, T], those [N] of the chosen rows' real tokens."""
    return figures[chosen][mask].to(device)


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


def train(
    models: Models, prompts: Sequence[Prompt], settings: Ppo, seed: int, rl_seed: int, gold: bool
) -> list[Metrics]:
    """Trains `models.policy` in place; returns each step's metrics.

    No seed here depends on the method: arms of one RL seed meet the same prompts with the same random numbers.
    """

    def generator(name: str) -> torch.Generator:
        return torch.Generator().manual_seed(derive_seed(seed, "ppo", rl_seed, name))

    batches: Iterator[list[Prompt]] = prompt_batches(prompts, settings.rollout_batch_size, generator("prompts"))
    shuffles = generator("minibatches")
    updates = settings.steps * settings.epochs * (settings.rollout_batch_size // settings.train_batch_size)
    policy = Learner(models.policy, settings.learning_rate, settings, updates)
    value = Learner(models.value, settings.value_learning_rate, settings, updates)
    history: list[Metrics] = []
    shown = ("reward", "kl_ref_k1", "length", "eos_share")
    for step in steps(range(settings.steps), "ppo", lambda: {key: history[-1][key] for key in shown if history}):
        asked = next(batches)
        draws = [derive_seed(seed, "ppo", rl_seed, "sampling", step, i) for i in range(len(asked))]
        rollout = collect(models, asked, settings, draws)
        rate = policy.rate()
        found = []
        for _ in range(settings.epochs):
            order = torch.randperm(len(asked), generator=shuffles).tolist()
            for begin in range(0, len(order), settings.train_batch_size):
                rows = order[begin : begin + settings.train_batch_size]
                found.append(update(models, policy, value, rollout, rows, settings))
                models.after_step(policy.steps)
        history.append(
            {
                "step": step,
                "episodes": (step + 1) * settings.rollout_batch_size,
                **rollout_metrics(rollout, models, settings.beta, gold),
                **mean_of(found),
                "learning_rate": rate,
            }
        )
    return history
