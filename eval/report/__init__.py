"""What people look at: figures, the HTML report, the headline in the terminal.

In: the tables that `eval.tables` wrote, and sample answers.
Out: SVG and PNG figures, one self-contained HTML page, a few lines in the terminal.
Open first: page.py (the report), then figures.py.
"""
