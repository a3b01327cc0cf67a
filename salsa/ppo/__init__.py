"""PPO with a value model and a KL penalty to a frozen reference.

math        pure functions: KL estimators, token rewards, GAE, whitening, clipped losses
models      the four models of a run, and what they say about given responses
rollout     sampling, scoring and the figures that training needs of a batch of responses
learner     a model in training, with its optimiser and schedule
metrics     a rollout's figures, and the signs that a run has gone wrong
trainer     the algorithm, top to bottom
resume      the states of an unfinished run on disk
stage       the command `python -m salsa align`
"""
