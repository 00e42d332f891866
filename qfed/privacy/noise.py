"""Randomness that privacy rests on: Gaussian noise and Poisson sampling from the operating system's entropy.

    z = s * Phi^-1((k + 1/2) 2^-54),   k uniform on 0 .. 2^53 - 1,  s = -1 or 1        (inverse-transform sampling)
    S = {i : u_i < q},                 u_i uniform on 0 .. 2^64 - 1 over 2^64, drawn a byte at first and whole at a tie

Phi^-1 is SciPy's `ndtri`. Both tails have full relative precision and end at 8.3 standard deviations, beyond which lies
a probability of 2^-54, negligible beside any delta. The noise is rounded to the gradient's float: the attack of Mironov
(CCS 2012) on floating-point noise is not excluded by proof; integer noise is what excludes it.
Shapes  size -> (size,) float64      Cost  about 10 ns a sample
"""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

_LOW_53 = np.uint64(2**53 - 1)


def _words(size: int) -> NDArray[np.uint64]:
    return np.frombuffer(os.urandom(8 * size), dtype=np.uint64)


def gaussian(size: int, stddev: float) -> NDArray[np.float64]:
    """`size` independent samples of N(0, stddev^2)."""
    words = _words(size)
    samples: NDArray[np.float64] = np.add(words & _LOW_53, 0.5, dtype=np.float64)
    samples *= 2.0**-54
    ndtri(samples, out=samples)
    # the words' highest bit, which is not among those that were used, is the sign
    np.copysign(samples, words.view(np.int64), out=samples)
    samples *= stddev
    return samples


def poisson_sample(records: int, rate: float) -> NDArray[np.intp]:
    """Indices of the records that enter a step, each with probability `rate`, independently; may be none."""
    if rate >= 1:
        return np.arange(records)
    first, rest = divmod(int(rate * 2.0**64), 2**56)
    drawn = np.frombuffer(os.urandom(records), dtype=np.uint8)
    chosen = drawn < first
    tied = np.flatnonzero(drawn == first)
    if tied.size:
        chosen[tied] = (_words(tied.size) >> np.uint64(8)) < np.uint64(rest)
    return np.flatnonzero(chosen)
