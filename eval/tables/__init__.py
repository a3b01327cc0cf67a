"""Tables of a grid or a ledger, as CSV, Markdown and LaTeX.

In: a grid's results as data frames (eval/grid), or a ledger.
Out: tables with an interval and a count in every row.
Open first: of_grid.py (a grid's tables), then table.py (what a table is).
"""
