"""Judging: pairs of answers compared, and single answers graded.

In: answers, a benchmark's protocol, and the config's `judge` section.
Out: JSONL files of judgments and grades; every reply is in the ledger.
Open first: judge.py and grade.py (the commands), then client.py (the ledger first, the endpoint for the rest).
"""
