"""Two finished grids side by side: what their figures say about each other, and what else differs.

In: two results folders.
Out: differences with intervals, differences of settings and versions, and one sentence.
Open first: command.py.
"""
