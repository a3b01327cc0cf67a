"""What people read: the HTML report, the claims and the headline in the terminal.

In: tables and figures, judged answers, the judge's texts, and the records of the runs.
Out: one self-contained HTML page, a few lines in the terminal.
Open first: page.py with report.html.j2 and page.js (the report), then samples.py (its judged answers).
"""
