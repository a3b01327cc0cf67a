"""What an algorithm learns from: sampled responses, their scores, and what the models say about them.

In: a policy, references, a reward model, prompts.
Out: one batch of experience a step, its metrics, and an error if it is not usable.
Open first: experience.py (one batch, top to bottom), then models.py (what it needs).

models      the models of a run
rewards     a reward model, an ensemble, or any function, as reward
samplers    what samples the responses: the policy itself, or vLLM
experience  sampling, scoring, and the log-probabilities of a batch of responses
estimates   KL estimators and means over tokens, as pure functions
metrics     a rollout's figures, and the signs that a run has gone wrong
"""
