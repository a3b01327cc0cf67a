"""Estimates before a grid runs: jobs, device hours, memory, disk space, judge calls. Needs no torch.

In: a config, the costs of its stages, a device's speed and memory.
Out: a table of jobs and costs.
Open first: plan.py (the command), then jobs.py (the grid's jobs) and schedule.py (when each runs).
"""
