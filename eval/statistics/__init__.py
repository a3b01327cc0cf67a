"""Statistics as pure functions: intervals, Bradley-Terry, length control. No files, no config.

In: arrays of points, weights and lengths by question.
Out: estimates with their limits.
Open first: intervals.py.
"""
