"""LoRA: train low-rank changes of the weights over a frozen base model.

In: a base checkpoint or an adapter of one, and the config's `lora`.
Out: a model with adapters in its linear layers, or a checkpoint.
Open first: layers.py, then checkpoint.py. Adapters on disk are read and averaged in salsa/checkpoints.
"""
