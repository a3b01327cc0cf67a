"""The stage `align`: an algorithm trains a policy against a reference. PPO and SALSA differ in the reference alone.

In: the policy's start, the checkpoints of the reference, a reward model, prompts.
Out: a policy, and a line of metrics a step.
Open first: training.py (a run from top to bottom), then align.py (its inputs and outputs).

training    steps of a run, whatever the algorithm
resume      the states of an unfinished run on disk
align       the command `python -m salsa align`
library     PPO in a notebook, with any reward function
"""
