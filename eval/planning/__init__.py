"""What a grid will take before it runs: jobs, hours, memory, disk, judge calls. No torch here.

In: a config, the sizes of its models and data, what a device gives.
Out: a table of jobs and costs.
Open first: plan.py (the command), then stage_costs.py (what each stage takes).
"""
