"""Spherical interpolation of fine-tuned weights, as in WARP (Ramé et al. 2024, arXiv 2406.16768), as pure functions.

What is interpolated are the changes from the model that fine-tuning started from, tensor by tensor. An average of two
changes of equal length is shorter than both, since they point elsewhere; on the arc between them the length stays.

A spherical average is a weighted sum of the same tensors, with weights that depend on their angles. So one pass over
the files finds the weights, and the soup's own pass computes the sum.
"""

import math
from collections.abc import Sequence

import numpy as np

from salsa.checkpoints.floats import FLOATS, pieces
from salsa.checkpoints.shards import Tensor

SMALLEST_SINE = 1e-6  # below it the arc is a line


def on_arc(base: Tensor, sources: Sequence[tuple[Tensor, float]]) -> list[tuple[Tensor, float]]:
    """Replace the sources' weights by those of their spherical average; the base's own weight draws the result to it.

    Sources with integers, which have no angle, keep their weights.
    """
    if base.dtype not in FLOATS:
        return list(sources)
    changed = [(tensor, weight) for tensor, weight in sources if tensor != base]
    share = sum(weight for tensor, weight in sources if tensor == base)
    factors = arc_factors(gram(base, [tensor for tensor, _ in changed]), [weight for _, weight in changed])
    scaled = [(1 - share) * factor for factor in factors]
    return [*zip((tensor for tensor, _ in changed), scaled, strict=True), (base, 1 - sum(scaled))]


def gram(base: Tensor, tensors: Sequence[Tensor]) -> np.ndarray:
    """Inner products [n, n] of the tensors' changes from the base, summed in float64 piece by piece."""
    total = np.zeros((len(tensors), len(tensors)))
    for start, *values in zip(pieces(base), *map(pieces, tensors), strict=True):
        changes = np.stack([value.astype(np.float64) - start for value in values])
        total += changes @ changes.T
    return total


def arc_factors(products: np.ndarray, weights: Sequence[float]) -> list[float]:
    """Factors [n] of the changes in their spherical average, from inner products [n, n] and weights.

    Only the weights' ratios matter. More than two changes are added one after the other, so their order matters a
    little.
    """
    factors, total = np.zeros(len(weights)), 0.0
    for number, weight in enumerate(weights):
        if not weight:
            continue
        total += weight
        lengths = factors @ products @ factors * products[number, number]
        cosine = float(products[number] @ factors / math.sqrt(lengths)) if lengths > 0 else 1.0
        kept, added = arc_weights(cosine, weight / total)
        factors *= kept
        factors[number] = added
    return list(factors)


def arc_weights(cosine: float, t: float) -> tuple[float, float]:
    """Weights of two vectors at the share `t` of the way along the arc between them, from the cosine of their angle.

    sin((1 - t) a) / sin a and sin(t a) / sin a; for parallel vectors, whose arc is a line, 1 - t and t.
    """
    angle = math.acos(min(1.0, max(-1.0, cosine)))
    if math.sin(angle) < SMALLEST_SINE:
        return 1 - t, t
    return math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)
