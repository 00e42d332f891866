"""The grid of shared noise, known to sites and aggregator alike: what a step is worth, and how large a part may be.

gamma = C / 2^12;     |v_i| <= floor((2^(w-1) - 1) / sites) in every coordinate, so no sum over the sites wraps
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

GRID_STEPS = 2**12
"""Grid steps in the bound C."""
METRICS_NORM = math.sqrt(3)
"""C of private metrics: three figures, each of at most 1 a record."""


def greatest_coordinate(sites: int, ring_bits: int) -> int:
    """The largest magnitude that a coordinate of one of `sites` parts may have."""
    return int((2 ** (ring_bits - 1) - 1) // sites)


def values_of(total: NDArray[np.float64], clip_norm: float) -> NDArray[np.float64]:
    """The real values that a sum of parts (P,) stands for."""
    return total * (clip_norm / GRID_STEPS)
