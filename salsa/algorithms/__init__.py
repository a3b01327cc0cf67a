"""How a policy learns from a batch of experience: PPO, RLOO and GRPO, a page each.

In: experience, settings, models.
Out: one optimiser step after the other, with metrics.
Open first: ppo.py (PPO from top to bottom), then rloo.py and grpo.py beside it, and math.py (their pure functions).

algorithm   what they share: micro-batches, an optimiser step, the interface
math        token rewards, GAE, whitening, advantages within groups, clipped losses
learner     a model in training, with its optimiser and schedule
zero        the same under DeepSpeed's ZeRO-3
"""
