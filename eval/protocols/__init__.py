"""What a judge is shown and how its reply is read, whatever the benchmark: templates and the grammar of verdicts.

In: templates, and judges' replies.
Out: prompts, and verdicts; never a guess.
Open first: verdicts.py (the grammar), then templates.py.
"""
