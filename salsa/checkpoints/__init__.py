"""Checkpoints: load, save, adopt, average, perturb. Safetensors only, no remote code.

In: checkpoint folders.
Out: models in memory, or new checkpoint folders.
Open first: loading.py, then soup.py (the average that SALSA is about).
"""
