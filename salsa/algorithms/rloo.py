"""RLOO (Ahmadian et al. 2024): REINFORCE with the mean reward of the other responses to the prompt as baseline.

A response is one action: its reward is the score minus beta times its KL to the reference, and its ratio that of the
whole response, with PPO's clip. With `baseline: batch` the other responses of the rollout are the baseline, of whatever
prompt, which is REINFORCE with a mean baseline.
"""

from torch import Tensor

from salsa.algorithms.algorithm import Algorithm, MicroBatch, Share, optimise
from salsa.algorithms.math import leave_one_out, policy_losses
from salsa.config.algorithms import RlooSettings
from salsa.rollouts.estimates import k1, k3
from salsa.rollouts.experience import Experience
from salsa.rollouts.metrics import Metrics


class Rloo(Algorithm[RlooSettings, Tensor]):
    """RLOO, without a value model. Its targets are advantages [B]."""

    name = "rloo"

    def targets(self, experience: Experience) -> tuple[Tensor, Metrics]:
        settings = self.settings
        kl = k1(experience.log_probs, experience.reference).where(experience.mask, 0.0).sum(1)
        rewards = experience.penalised - settings.beta * kl
        group = settings.responses_per_prompt if settings.baseline == "prompt" else len(rewards)
        advantages = leave_one_out(rewards, group)
        return advantages, {"advantage_std": advantages.std().item()}

    def update(self, experience: Experience, targets: Tensor, rows: list[int]) -> Metrics:
        settings, responses = self.settings, len(rows)
        tokens = experience.tokens(rows)

        def figures(batch: MicroBatch) -> dict[str, Share]:
            old = batch.of_tokens(experience.log_probs)
            new = self.log_probs(batch)
            advantages = batch.of_responses(targets)
            losses, clipped = policy_losses(batch.sums(new), batch.sums(old), advantages, settings.clip)
            return {
                "loss_policy": (losses, responses),
                "clip_fraction_policy": (clipped, responses),
                "approx_kl": (k3(old, new), tokens),
            }

        return optimise(self.policy, "policy", experience, rows, settings, figures)
