"""Figures of answers without a judge: learned reward, KL, length, gold reward; soups along a line, greedy soups.

In: answers, a reward model, the SFT model and the reference.
Out: one JSONL line of figures an answer, or a soup.
Open first: score.py, then kl.py.
"""
