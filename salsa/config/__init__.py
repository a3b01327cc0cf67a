"""The config of a grid: its sections, methods as data, names of checkpoints, and the folders that follow from them.

In: YAML files, merged.
Out: one checked `Config`; every stage is given the section that it uses and no more.
Open first: config.py (the whole), then sections.py (a class a section) and methods.py (a method as data).
"""
