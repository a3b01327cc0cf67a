"""The console script `salsa`: every command, grouped by what people want to do.

In: the command line.
Out: an exit status. Stages run as they do with `python -m salsa` and `python -m eval`.
Open first: main.py (the groups), then run.py (`salsa run`) and rebuild.py (`salsa report`).
"""
