"""Discrete Gaussian noise: integers from the operating system's entropy, exact to a stated statistical distance.

    P[Y = y] = exp(-y^2 / (2 s^2)) / sum_z exp(-z^2 / (2 s^2)),        y, z integers

Source: Canonne, Kamath, Steinke, NeurIPS 2020 (the distribution and its privacy). Departure: they sample by rejection
in exact rationals, one at a time; here tables of the cumulative distribution of |Y| are inverted, many samples at once.
Floating-point noise has gaps that tell what it was added to (Mironov, CCS 2012); integers have none.

A table holds boundaries c_0 < ... < c_K of |Y| in units of 2^-127, made in integers of 192 bits. A sample is the number
of boundaries at or below a uniform number of 127 bits, and a sign. The first 63 bits nearly always decide; the other 64
are drawn for the samples that they leave open, so the result is that of the whole number. Each boundary is within
2^-127 of the true one, and beyond K = ceil(13.5 s) lies less than 2^-127, hence a total variation distance of at most
(K + 2) 2^-127 a sample.

A large s is made of two small ones, so that tables stay in the processor's cache:  Y = 2^j A + B  with b = 2.5 2^j and
s^2 = 4^j a^2 + b^2. Its probabilities are those of Y times 1 +- 4 exp(-2 pi^2 (a b / s)^2) (`ripple`, by Poisson
summation; Poppelmann, Ducas, Guneysu, CHES 2014, lemma 1), which is 2^-174 and the like. a is rounded up: the noise
is never less than asked.

Uniform words are AES-256 in counter mode under a fresh key of os.urandom for every call (`cryptography`'s).
Shapes  size -> (size,) int64, |y| <= reach      Units  grid steps
Cost    40 ns a sample up to s = 2048, 80 ns beyond; making the tables 30 ms, once in a process
Errors  ConfigError for a stddev outside [1, 1e9]
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Context, Decimal
from functools import lru_cache
from itertools import accumulate

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from qfed.errors import ConfigError

LEAST_STDDEV, GREATEST_STDDEV = 1.0, 1e9
"""In grid steps. Below, rounding is larger than the noise; above, no ring of 32 bits holds it."""
_WHOLE = 2048
_SMOOTH = 2.5
_REACH = 13.5
_UP = 1 + 2.0**-48
_PRECISION = 192
_BLOCK = 1 << 15
_STEPS = 3

Words = NDArray[np.uint64]


@dataclass(frozen=True)
class DiscreteGaussian:
    """The distribution with one standard deviation parameter, ready to sample from; made by `discrete_gaussian`."""

    stddev: float
    parts: tuple[tuple[int, Table], ...] = field(repr=False)
    """Y is the sum of factor x sample of each table."""

    @property
    def reach(self) -> int:
        """No sample is larger in magnitude."""
        return sum(factor * table.reach for factor, table in self.parts)

    @property
    def distance(self) -> float:
        """Bound of the total variation distance between one sample and the distribution."""
        made = sum(table.distance for _, table in self.parts)
        if len(self.parts) == 1:
            return made
        (_, a), (_, b) = self.parts
        return made + 2 * ripple(a.stddev * b.stddev / self.stddev)

    def sample(self, size: int) -> NDArray[np.int64]:
        """`size` independent samples."""
        (factor, table), *others = self.parts
        out = table.sample(size)
        if factor != 1:
            out *= factor
        for factor, table in others:
            out += factor * table.sample(size)
        return out


@lru_cache(maxsize=16)
def discrete_gaussian(stddev: float) -> DiscreteGaussian:
    """The distribution with this standard deviation parameter s, in grid steps (kept for the next call)."""
    if not LEAST_STDDEV <= stddev <= GREATEST_STDDEV:
        raise ConfigError(
            f"discrete noise needs a stddev from {LEAST_STDDEV:g} to {GREATEST_STDDEV:g} grid steps, got "
            f"stddev={stddev:g}; use a privacy.epsilon nearer to 1"
        )
    if stddev <= _WHOLE:
        return DiscreteGaussian(stddev, ((1, table_of(stddev)),))
    return DiscreteGaussian(stddev, split(stddev, 1 << round(math.log2(stddev / _SMOOTH) / 2)))


def split(stddev: float, factor: int) -> tuple[tuple[int, Table], ...]:
    """The two parts of a discrete Gaussian: factor x A + B."""
    fine = _SMOOTH * factor
    coarse = math.sqrt(stddev**2 - fine**2) / factor * _UP
    return ((factor, table_of(coarse)), (1, table_of(fine)))


def ripple(stddev: float) -> float:
    """How far sums of a Gaussian's density over shifted integer grids differ, in relative terms: |log ratio| <= this.

    sum_z exp(-(z - t)^2 / 2 s^2) = s sqrt(2 pi) (1 + 2 sum_{k >= 1} exp(-2 pi^2 s^2 k^2) cos(2 pi k t)), so any two t
    are within (1 + e) / (1 - e), e = 2 sum_k exp(-2 pi^2 s^2 k^2) <= 2.1 exp(-2 pi^2 s^2) for s >= 1.
    """
    return 4.3 * math.exp(-2 * math.pi**2 * stddev**2)


@dataclass(frozen=True, eq=False)
class Table:
    """The inverse of the distribution function of |Y|, for one s."""

    stddev: float
    high: Words = field(repr=False)
    """First 63 bits of the boundaries, (K + 1,); the last one is 2^63, beyond all words."""
    low: Words = field(repr=False)
    """The 64 bits after them."""
    guide: NDArray[np.int32] = field(repr=False)
    """guide[g]: boundaries below g 2^(63 - b), for the first b bits g of a word, (2^b,)."""

    @property
    def reach(self) -> int:
        """K."""
        return len(self.high) - 1

    @property
    def distance(self) -> float:
        """Bound of the total variation distance of one sample."""
        return float((self.reach + 2) * 2.0**-127)

    def sample(self, size: int) -> NDArray[np.int64]:
        """`size` independent samples."""
        out = np.empty(size, np.int64)
        for begin, words in _words(size):
            out[begin : begin + len(words)] = self.of_words(words)
        return out

    def of_words(self, words: Words) -> NDArray[np.int64]:
        """The samples that uniform words of 64 bits (B,) stand for: 63 bits of magnitude and, lowest, a sign."""
        word = words >> np.uint64(1)
        bits = len(self.guide).bit_length() - 1
        at = self.guide[(word >> np.uint64(63 - bits)).astype(np.intp)].astype(np.intp)
        for _ in range(_STEPS):
            at += self.high[at] < word
        undecided = np.flatnonzero(self.high[at] < word)  # the tail, where a cell of the guide holds many boundaries
        if len(undecided):
            at[undecided] = np.searchsorted(self.high, word[undecided], side="left")
        tied = np.flatnonzero(self.high[at] == word)
        if len(tied):
            self._resolve(at, tied, word)
        magnitude = at.astype(np.int64)
        return np.where((words & np.uint64(1)).astype(bool), -magnitude, magnitude)

    def _resolve(self, at: NDArray[np.intp], tied: NDArray[np.intp], word: Words) -> None:
        """Boundaries that agree with a word in all 63 bits: 64 more bits decide how many lie at or below it."""
        rest = np.concatenate([words for _, words in _words(len(tied))])
        for place, more in zip(tied.tolist(), rest, strict=True):
            while self.high[at[place]] == word[place] and self.low[at[place]] <= more:
                at[place] += 1


def _words(size: int) -> Iterator[tuple[int, Words]]:
    """Uniform 64-bit words, in blocks with the place of each."""
    stream = Cipher(algorithms.AES(os.urandom(32)), modes.CTR(bytes(16))).encryptor()
    for begin in range(0, size, _BLOCK):
        count = min(_BLOCK, size - begin)
        yield begin, np.frombuffer(stream.update(bytes(8 * count)), dtype=np.uint64)


def table_of(stddev: float) -> Table:
    """The table for one s; its size and the time to make it grow with s."""
    boundaries = _boundaries(stddev)
    body = np.frombuffer(b"".join(c.to_bytes(16, "little") for c in boundaries), dtype="<u8").reshape(-1, 2)
    low, high = body.astype(np.uint64).T.copy()
    bits = max(8, min(16, math.ceil(math.log2(8 * stddev))))
    edges = np.arange(1 << bits, dtype=np.uint64) << np.uint64(63 - bits)
    guide = np.searchsorted(high, edges, side="left").astype(np.int32)
    return Table(stddev, high, low, guide)


def _boundaries(stddev: float) -> list[int]:
    """floor(2^127 P[|Y| <= k]) for k = 0 .. K, by w_{k+1} = w_k r_k, r_{k+1} = r_k exp(-1/s^2) in 192-bit integers."""
    exact, one = Context(prec=80), 1 << _PRECISION
    precision = exact.divide(Decimal(1), exact.power(Decimal(stddev), 2))

    def fixed(exponent: Decimal) -> int:
        return int(exact.multiply(exact.exp(exponent), Decimal(one)))

    less = exact.minus(precision)  # the unary minus would round to the 28 digits of the ambient context
    ratio, shrink = fixed(exact.divide(less, Decimal(2))), fixed(less)
    weight, weights = one, [one]
    for _ in range(math.ceil(_REACH * stddev)):
        weight = weight * ratio >> _PRECISION
        ratio = ratio * shrink >> _PRECISION
        weights.append(2 * weight)
    total = sum(weights)
    return [(part << 127) // total for part in accumulate(weights)]  # the last one is 2^127, beyond all words
