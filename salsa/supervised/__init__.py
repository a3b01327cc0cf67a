"""Stages that train on given data: base models, SFT, reward models alone and combined, DPO.

In: a checkpoint and token ids of `salsa.data`.
Out: a checkpoint, and its training metrics.
Open first: sft.py, the shortest; trl_trainers.py has what the stages share that train with TRL.
"""
