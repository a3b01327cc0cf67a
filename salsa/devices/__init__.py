"""The processes and GPUs of one run.

In: how a stage was launched, and the GPUs that the machine has.
Out: who computes which rows, and GPUs that no other job has.
Open first: processes.py (a run in several processes), then gpus.py (a job takes free GPUs).
"""
