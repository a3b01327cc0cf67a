"""GRPO (Shao et al. 2024): PPO's clipped loss per token, with advantages relative to the other responses to the prompt.

All tokens of a response have its advantage. The KL to the reference is a term of the loss, not of the reward: beta
times k3 at each token, so `beta` is in units of the advantages. A token is not charged for the KL that follows it.
"""

from torch import Tensor

from salsa.algorithms.algorithm import Algorithm, MicroBatch, Share, optimise
from salsa.algorithms.math import group_relative, policy_losses
from salsa.config.algorithms import GrpoSettings
from salsa.rollouts.estimates import k3
from salsa.rollouts.experience import Experience
from salsa.rollouts.metrics import Metrics


class Grpo(Algorithm[GrpoSettings, Tensor]):
    """GRPO, without a value model. Its targets are advantages [B]."""

    name = "grpo"

    def targets(self, experience: Experience) -> tuple[Tensor, Metrics]:
        settings = self.settings
        advantages = group_relative(experience.penalised, settings.responses_per_prompt, settings.scale == "group")
        return advantages, {"advantage_std": advantages.std().item()}

    def update(self, experience: Experience, targets: Tensor, rows: list[int]) -> Metrics:
        settings, responses = self.settings, len(rows)
        tokens = experience.tokens(rows)

        def figures(batch: MicroBatch) -> dict[str, Share]:
            old = batch.of_tokens(experience.log_probs)
            new = self.log_probs(batch)
            advantages = batch.at_tokens(batch.of_responses(targets))
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
