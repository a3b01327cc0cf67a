"""Tables: stored results, aggregated and written as CSV, Markdown and LaTeX.

In: judgments, grades, scores and metrics of a grid, or a ledger.
Out: tables with an interval and a count in every row.
Open first: of_grid.py (a grid's tables), then aggregate.py (what each row is).
"""
