"""The life of a stage, whatever it does: command line, settings, outputs, provenance, log lines, errors, seeds.

In: a command's arguments and one section of the config.
Out: complete outputs or none, each with a run.json that says what it was made from.
Open first: command.py (how a command starts and ends), then outputs.py and provenance.py.
"""
