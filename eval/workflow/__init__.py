"""What the rules take from the config: each job's input files, options and settings.

In: the config as Snakemake has merged it.
Out: objects for rules/grid.smk, whose methods take a job's wildcards; the settings files of all stages.
Open first: start.py (what a run does first), then settings_files.py.
"""
