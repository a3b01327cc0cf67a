"""RLOO (Ahmadian et al. 2024): REINFORCE with the mean reward of the other responses to the prompt as baseline.

A response is one action: its reward is the score minus beta times its KL to the reference, and its ratio that of the
whole response, with PPO's clip. With `baseline: batch` the other responses of the rollout are the baseline, of whatever
prompt, which is REINFORCE with a mean baseline.
"""

from dataclasses import dataclass

from torch import Tensor

from salsa.algorithms.algorithm import Algorithm, MicroBatch, Share, make_learner, optimise
from salsa.algorithms.math import leave_one_out, policy_losses
from salsa.config.algorithms import RlooSettings
from salsa.models.responses import log_probs
from salsa.rollouts.estimates import k1, k3
from salsa.rollouts.experience import Experience
from salsa.rollouts.metrics import Metrics
from salsa.rollouts.models import Models


@dataclass(frozen=True)
class Targets:
    """What the updates on a rollout need."""

    advantages: Tensor  # [B]


class Rloo(Algorithm[Targets]):
    """RLOO, without a value model."""

    name = "rloo"

    def __init__(self, models: Models, settings: RlooSettings):
        self.models, self.settings = models, settings
        super().__init__({"policy": make_learner(models.policy, settings.learning_rate, settings)})

    def targets(self, experience: Experience) -> tuple[Targets, Metrics]:
        settings = self.settings
        kl = k1(experience.log_probs, experience.reference).where(experience.mask, 0.0).sum(1)
        rewards = experience.penalised - settings.beta * kl
        group = settings.responses_per_prompt if settings.baseline == "prompt" else len(rewards)
        advantages = leave_one_out(rewards, group)
        return Targets(advantages), {"advantage_std": advantages.std().item()}

    def update(self, experience: Experience, targets: Targets, rows: list[int]) -> Metrics:
        settings, responses = self.settings, len(rows)
        tokens = sum(len(experience.answers[row].token_ids) for row in rows)

        def figures(batch: MicroBatch) -> dict[str, Share]:
            old = batch.of_tokens(experience.log_probs)
            new = self.models.policy.forward(lambda model: log_probs(model, batch.sequences, settings.temperature))
            advantages = batch.of_responses(targets.advantages)
            losses, clipped = policy_losses(batch.sums(new), batch.sums(old), advantages, settings.clip)
            return {
                "loss_policy": (losses, responses),
                "clip_fraction_policy": (clipped, responses),
                "approx_kl": (k3(old, new), tokens),
            }

        return optimise(self.policy, "policy", experience, rows, settings, figures)
