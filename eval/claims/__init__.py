"""Claims: verdicts that are computed from a grid's results by the rules of config/claims.yaml.

In: judgments, scores, training metrics and soups of a grid.
Out: rows with an estimate, its limits and a verdict.
Open first: verdicts.py.
"""
