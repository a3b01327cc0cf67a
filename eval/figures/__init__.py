"""Figures of a grid, as SVG and PNG.

In: a grid's results as data frames (eval/grid), and the comparisons at equal KL (eval/tables).
Out: the same bytes for the same results; of many replicates or runs the mean.
Open first: of_grid.py (all figures with their captions), then win_rates.py.
"""
