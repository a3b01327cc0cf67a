"""What the Snakefile and its profiles use besides the config.

In: the grid's targets, the folders of a copied grid, the sizes of its models.
Out: a lock on the results folder, restored file times, a hint for a misspelt target, resources for each job, a server
that starts jobs as forks.
Open first: model_sizes.py (what profiles evaluate), then targets.py.
"""
