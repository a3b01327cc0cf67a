"""Checks before a grid runs: access, keys, files, disks, GPUs, versions. They change nothing.

In: a config and this machine.
Out: one line per check: ok, or what to do.
Open first: doctor.py (the command), then check.py (what a check is).
"""
