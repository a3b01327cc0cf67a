"""Checks before a grid runs: access, keys, files, disks, GPUs, versions. They change nothing.

In: a config, and the machine as it is.
Out: one line a check: fine, or what to do.
Open first: doctor.py (the command), then check.py (what a check is).
"""
