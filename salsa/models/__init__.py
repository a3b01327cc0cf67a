"""Passes over a model: attention without padding, scores of given sequences, sampling, vLLM.

In: a loaded model and token ids.
Out: log-probabilities, scores or sampled responses.
Open first: scoring.py (given sequences), then sampling.py (new ones).
"""
