"""Checkpoints: load, save, adopt; files of weights, of adapters and of ensembles. Safetensors only, no remote code.

In: checkpoint folders.
Out: models in memory, or new checkpoint folders.
Open first: loading.py, then shards.py (the files of weights).
"""
