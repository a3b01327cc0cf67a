"""Training data: rows from files or the hub, checked, then stored once as token ids.

In: a data source of the config and a tokenizer.
Out: token ids in a cache that all jobs share, with counts of the rows that cannot be used.
Open first: training_sets.py (which stage trains on what), then rows.py (reading) and token_cache.py (storing).
"""
