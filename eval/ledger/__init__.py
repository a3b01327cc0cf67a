"""The ledger: a folder that keeps every judge call, so that none is paid twice.

In: finished calls, keyed by what was asked.
Out: the stored reply of a call, and an index that says whose answers each call was about.
Open first: calls.py (the calls), then index.py (the index).
"""
