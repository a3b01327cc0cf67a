"""Estimates before a grid runs: jobs, device hours, memory, disk space, judge calls. Needs no torch.

In: a config, the sizes of its models and data, a device's speed and memory.
Out: a table of jobs and costs.
Open first: plan.py (the command), then stage_costs.py (the cost of each stage).
"""
