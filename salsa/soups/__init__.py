"""New checkpoints from given ones: averages, straight or on an arc, and random displacements. Models are not loaded.

In: checkpoint folders of one architecture, weights.
Out: a checkpoint folder.
Open first: soup.py (the average that SALSA is about), then averaging.py (its streamed sums) and slerp.py (arcs).

warp     the last average of WARP's rounds, and its metrics
perturb  a random displacement as large as another checkpoint's distance
library  averages in a notebook
"""
