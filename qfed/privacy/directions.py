"""Public random directions that all sites and the aggregator know without telling each other.

    z_k in {-1, 1}^P,   bits of SHAKE-256(run, round, number of directions, P)

A round of zeroth-order steps releases only how far to go along each direction; whoever knows run and round can make the
directions again. They depend on no record, so they need no protection, and a guarantee holds for any direction.
Signs instead of normal numbers, as in simultaneous perturbation (Spall, IEEE Trans. Autom. Control 37, 332, 1992): the
same mean z z^T = 1 with less variance.      Shapes  (K, P) float64      Cost  P bits a direction
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

Directions = NDArray[np.float64]


def directions(run: str, round: int, count: int, size: int) -> Directions:
    """`count` directions (K, P) of one round."""
    label = f"qfed.directions/1 {run} {round} {count} {size}".encode()
    stream = np.frombuffer(hashlib.shake_256(label).digest((count * size + 7) // 8), dtype=np.uint8)
    bits = np.unpackbits(stream)[: count * size].reshape(count, size)
    return bits.astype(np.float64) * 2 - 1
