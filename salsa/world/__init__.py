"""The mini world: a small language of instruction tasks whose true reward is known.

In: the config's `world` section and a seed.
Out: a tokenizer, data sets and benchmark questions, and the gold reward of any answer.
Open first: tasks.py (the tasks and their gold answers), then make.py (the command that writes the world).
"""
