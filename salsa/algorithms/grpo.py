"""GRPO (Shao et al. 2024): PPO's clipped loss per token, with advantages relative to the other responses to the prompt.

All tokens of a response have its advantage. The KL to the reference is a term of the loss, not of the reward: beta
times k3 at each token, so `beta` is in units of the advantages. A token is not charged for the KL that follows it.
"""

from dataclasses import dataclass

from torch import Tensor

from salsa.algorithms.algorithm import Algorithm, MicroBatch, Share, make_learner, optimise
from salsa.algorithms.math import group_relative, policy_losses
from salsa.config.algorithms import GrpoSettings
from salsa.models.responses import log_probs
from salsa.rollouts.estimates import k3
from salsa.rollouts.experience import Experience
from salsa.rollouts.metrics import Metrics
from salsa.rollouts.models import Models


@dataclass(frozen=True)
class Targets:
    """What the updates on a rollout need."""

    advantages: Tensor  # [B]


class Grpo(Algorithm[Targets]):
    """GRPO, without a value model."""

    name = "grpo"

    def __init__(self, models: Models, settings: GrpoSettings):
        self.models, self.settings = models, settings
        super().__init__({"policy": make_learner(models.policy, settings.learning_rate, settings)})

    def targets(self, experience: Experience) -> tuple[Targets, Metrics]:
        settings = self.settings
        advantages = group_relative(experience.penalised, settings.responses_per_prompt, settings.scale == "group")
        return Targets(advantages), {"advantage_std": advantages.std().item()}

    def update(self, experience: Experience, targets: Targets, rows: list[int]) -> Metrics:
        settings, responses = self.settings, len(rows)
        tokens = sum(len(experience.answers[row].token_ids) for row in rows)

        def figures(batch: MicroBatch) -> dict[str, Share]:
            old = batch.of_tokens(experience.log_probs)
            new = self.models.policy.forward(lambda model: log_probs(model, batch.sequences, settings.temperature))
            advantages = batch.at_tokens(batch.of_responses(targets.advantages))
            losses, clipped = policy_losses(new, old, advantages, settings.clip)
            kl = k3(new, batch.of_tokens(experience.reference))
            losses = losses + settings.beta * (kl * (new - old).exp() if settings.corrected_kl else kl)
            by_response = losses / batch.at_tokens(batch.lengths)
            return {
                "loss_policy": (losses, tokens) if settings.average == "tokens" else (by_response, responses),
                "clip_fraction_policy": (clipped, tokens),
                "approx_kl": (k3(old, new), tokens),
            }

        return optimise(self.policy, "policy", experience, rows, settings, figures)
