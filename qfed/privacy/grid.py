"""The grid of shared noise, known to sites and aggregator alike: what a step is worth, and how large a part may be.

gamma = C / 2^12;     |v_i| <= floor((2^(w-1) - 1) / sites) in every coordinate, so no sum over the sites wraps
Why a share has the deviation that it has: shares.py.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

GRID_STEPS = 2**12
"""Grid steps in the bound C."""
MARGIN = 2.0**-9
"""Relative room for floating-point rounding in clipped sums."""
SMOOTHING = 3.0
"""b: what integer noise pays, in grid steps of standard deviation, for being accounted as a continuous Gaussian."""
METRICS_NORM = math.sqrt(3)
"""C of private metrics: three figures, each of at most 1 a record."""


def greatest_coordinate(sites: int, ring_bits: int) -> int:
    """The largest magnitude that a coordinate of one of `sites` parts may have."""
    return int((2 ** (ring_bits - 1) - 1) // sites)


def values_of(total: NDArray[np.float64], clip_norm: float) -> NDArray[np.float64]:
    """The real values that a sum of parts (P,) stands for."""
    return total * (clip_norm / GRID_STEPS)


def sensitivity(size: int) -> float:
    """D: L2 distance, in grid steps, of the encoded sums of two neighbouring data sets."""
    return GRID_STEPS * (1 + MARGIN) + math.sqrt(size)


def share_stddev(noise_multiplier: float, honest: int, size: int) -> float:
    """s: standard deviation of one site's share of (P,) coordinates, in grid steps."""
    total = (noise_multiplier * sensitivity(size)) ** 2 + SMOOTHING**2
    return math.sqrt(total / honest) * (1 + 2.0**-48)  # whatever doubles lose, it is not less
