"""PPO (Schulman et al. 2017) with a value model, and with the KL to the reference in the reward of each token.

Advantages and returns follow from the rollout's values (GAE). Clipped updates of the policy and of the value model
follow.
"""

from dataclasses import dataclass

from torch import Tensor

from salsa.algorithms.algorithm import Algorithm, MicroBatch, Share, make_learner, optimise
from salsa.algorithms.math import explained_variance, gae, policy_losses, token_rewards, value_losses, whiten
from salsa.config.algorithms import PpoSettings
from salsa.models.responses import values
from salsa.models.trained import Trained
from salsa.rollouts.estimates import k1, k3
from salsa.rollouts.experience import Experience, compute_in_batches
from salsa.rollouts.metrics import Metrics
from salsa.rollouts.models import Models


@dataclass(frozen=True)
class Targets:
    """What the updates on a rollout need; tensors [B, T] are 0 outside the mask."""

    values: Tensor
    advantages: Tensor  # whitened over the whole rollout
    returns: Tensor


class Ppo(Algorithm[PpoSettings, Targets]):
    """PPO. The policy is updated first, then the value model, so gradients of only one model exist at a time."""

    name = "ppo"

    def __init__(self, models: Models, value: Trained, settings: PpoSettings):
        super().__init__(models, settings)
        self.value = value
        self.learners["value"] = make_learner(value, settings.value_learning_rate, settings)

    def targets(self, experience: Experience) -> tuple[Targets, Metrics]:
        settings, mask = self.settings, experience.mask
        scale = self.models.normalisation
        [before] = compute_in_batches(
            experience.prompts,
            experience.answers,
            settings,
            lambda batch: [self.value.forward(lambda model: values(model, batch, scale))],
        )
        kl = k1(experience.log_probs, experience.reference)
        rewards = token_rewards(kl, experience.penalised, mask, settings.beta)
        advantages, returns = gae(rewards, before, mask, settings.gamma, settings.lam)
        targets = Targets(before, whiten(advantages, mask), returns)
        return targets, {"explained_variance": explained_variance(before, returns, mask).item()}

    def update(self, experience: Experience, targets: Targets, rows: list[int]) -> Metrics:
        settings, scale = self.settings, self.models.normalisation
        tokens = experience.tokens(rows)

        def policy_figures(batch: MicroBatch) -> dict[str, Share]:
            old = batch.of_tokens(experience.log_probs)
            new = self.log_probs(batch)
            losses, clipped = policy_losses(new, old, batch.of_tokens(targets.advantages), settings.clip)
            figures = {"loss_policy": losses, "clip_fraction_policy": clipped, "approx_kl": k3(old, new)}
            return {name: (figure, tokens) for name, figure in figures.items()}

        def value_figures(batch: MicroBatch) -> dict[str, Share]:
            new = self.value.forward(lambda model: values(model, batch.sequences, scale))
            old, returns = batch.of_tokens(targets.values), batch.of_tokens(targets.returns)
            losses, clipped = value_losses(new, old, returns, settings.value_clip)
            return {"loss_value": (losses, tokens), "clip_fraction_value": (clipped, tokens)}

        policy = optimise(self.policy, "policy", experience, rows, settings, policy_figures)
        return policy | optimise(self.learners["value"], "value", experience, rows, settings, value_figures)
