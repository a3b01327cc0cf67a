"""A grid's results folder: where each file lies, its files as data frames, and their aggregates; claims as data.

In: answers, judgments, grades, scores and metrics of a grid.
Out: data frames, among them long-form ones with an interval and a count in every row.
Open first: layout.py (the paths), then results.py (what is read).
"""
