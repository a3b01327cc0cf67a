"""PPO with a value model and a KL penalty to a reference. PPO and SALSA differ in the reference alone.

In: the policy's start, the checkpoints of the reference, a reward model, prompts.
Out: a policy, and a line of metrics a step.
Open first: trainer.py (the algorithm, top to bottom), then math.py (its pure functions).

math        KL estimators, token rewards, GAE, whitening, clipped losses
models      the four models of a run, and what they say about given responses
rollout     sampling, scoring and the figures that training needs of a batch of responses
samplers    what samples the responses: the policy itself, or vLLM
learner     a model in training, with its optimiser and schedule
zero        the same under DeepSpeed's ZeRO-3
metrics     a rollout's figures, and the signs that a run has gone wrong
resume      the states of an unfinished run on disk
align       the command `python -m salsa align`
"""
