"""What a person sees while the workflow runs: stages with bars on a terminal, a line per job in a file.

In: the log records of a running Snakemake, which loads this room as its logger plugin.
Out: lines on stderr; the jobs of a dry run on stdout.
Open first: log_handler.py.
"""
