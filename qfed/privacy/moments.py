"""Pair counts as one vector of sums over records in which every record has the same length: what a release is made of.

    s_i = 1 - 2 b_i,    phi(b) = (w0, w1 s_1 .. w1 s_n, s_1 s_2, s_1 s_3 .. s_{n-1} s_n)   in the block of the record's
    class, 0 in the blocks of the others;    release = sum over records of phi(b) + noise;    C = max_b |phi(b)|_2

    table of bits i, j:  N[a, b] = (N + u S_i + v S_j + u v S_ij) / 4,    u = 1 - 2a,  v = 1 - 2b

Sensitivity. Adding or removing one record (replacing its contribution by zero) moves the release by phi(b), whose
entries are w0, n of +-w1 and one +-1 for each pair that is counted, whatever b is, and all of them in one block. So

    |phi(b)|_2 = C = sqrt(w0^2 + n w1^2 + pairs)     exactly, for every record

Moments of bits in {0, 1} have the same size and the bound sqrt(1 + n + pairs), but a cell such as N[0, 0] = N - M_i -
M_j + M_ij then adds four noises up, where here it adds four quarters: a quarter of the deviation. The four cells of
every table instead have sensitivity sqrt(pairs), tables that disagree and about twice the deviation for S_ij.

Weights. By the method of Lagrange the sum over all tables of their cells' variances is least, for a given C, when
w^2 goes with the root of how often a sum is used: N in every table, S_i in n - 1, S_ij in one.

    w0^2 = sqrt(n (n - 1) / 2),    w1^2 = sqrt(n - 1),    w2 = 1

Sources: Barak et al., PODS 2007 (Fourier basis of tables); Xiao et al., NeurIPS 2023 (arXiv 2305.08175, optimal bases
for marginals). Departure: classes side by side, since a record is in one class only.

Pairs within one column's code need no counting where a pattern (a, b) cannot occur (thermometer, one-hot): from
(1 + u s_i)(1 + v s_j) = 0 follows S_ij = -u v (N + u S_i + v S_j).
Shapes  bits (N, n + t) -> sums (P,), P = K (1 + n + pairs)      Units  records
Cost    O(N n^2)      Errors  ShapeError
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from qfed.errors import ShapeError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Opened:
    """Sums over one class, noisy or exact."""

    records: float
    spins: Floats
    """S_i, (n,)"""
    products: Floats
    """S_ij, (n, n), symmetric; its diagonal is N."""


@dataclass(frozen=True)
class Deviations:
    """Standard deviation of the noise in each kind of sum, in records."""

    records: float
    spins: float
    products: float

    @property
    def cell(self) -> float:
        """Of one cell of a counted pair's table."""
        return math.sqrt(self.records**2 + 2 * self.spins**2 + self.products**2) / 4


@dataclass(frozen=True)
class Moments:
    """Which sums are counted; `fixed` bits tell the classes apart, whose `patterns` (K of (t,)) they are."""

    width: int
    """Bits of a record, n + t."""
    fixed: tuple[int, ...] = ()
    patterns: tuple[tuple[int, ...], ...] = ((),)
    impossible: tuple[tuple[int, int, int, int], ...] = ()
    """(i, j, a, b), i < j: bits i, j of one column are never a, b; at most one pattern a pair."""
    weighted: bool = True
    """False counts with weights of one: exact integers, for use without noise."""

    @cached_property
    def free(self) -> tuple[int, ...]:
        """The n bits that are counted."""
        return tuple(bit for bit in range(self.width) if bit not in self.fixed)

    @cached_property
    def _pairs(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Counted pairs, i < j, by their places among the free bits."""
        n, place = len(self.free), {bit: at for at, bit in enumerate(self.free)}
        counted = np.triu(np.ones((n, n), np.bool_), 1)
        for i, j, _, _ in self.impossible:
            if i in place and j in place:
                counted[place[i], place[j]] = False
        rows, columns = np.nonzero(counted)
        return rows, columns

    @property
    def decided(self) -> NDArray[np.bool_]:
        """Pairs (n, n) of free bits that are not counted since the coding decides them."""
        n = len(self.free)
        found = ~np.eye(n, dtype=np.bool_)
        rows, columns = self._pairs
        found[rows, columns] = found[columns, rows] = False
        return found

    @property
    def block(self) -> int:
        """Sums of one class."""
        return 1 + len(self.free) + len(self._pairs[0])

    @property
    def size(self) -> int:
        """P."""
        return len(self.patterns) * self.block

    @property
    def weights(self) -> tuple[float, float, float]:
        """w0, w1, w2."""
        n = len(self.free)
        if not self.weighted or n < 2:
            return 1.0, 1.0, 1.0
        return (n * (n - 1) / 2) ** 0.25, (n - 1) ** 0.25, 1.0

    @property
    def norm(self) -> float:
        """C, of every record."""
        w0, w1, w2 = self.weights
        return math.sqrt(w0**2 + len(self.free) * w1**2 + len(self._pairs[0]) * w2**2)

    def sums(self, bits: NDArray[np.integer]) -> Floats:
        """The weighted sums (P,) over records (N, n + t)."""
        if bits.ndim != 2 or bits.shape[1] != self.width:
            raise ShapeError(f"records of {self.width} bits have shape (N, {self.width}), got {bits.shape}")
        (w0, w1, w2), (rows, columns) = self.weights, self._pairs
        blocks, found = [], 0
        for pattern in self.patterns:
            mine = bits[(bits[:, list(self.fixed)] == np.array(pattern, bits.dtype)).all(axis=1)]
            found += len(mine)
            spins = 1.0 - 2.0 * mine[:, list(self.free)]
            products = (spins.T @ spins)[rows, columns]
            blocks += [np.array([w0 * len(mine)]), w1 * spins.sum(axis=0), w2 * products]
        if found != len(bits):
            raise ShapeError(f"{len(bits) - found} records are of none of the {len(self.patterns)} classes")
        return np.concatenate(blocks)

    def opened(self, total: Floats) -> tuple[Opened, ...]:
        """The sums of each class from the weighted vector (P,)."""
        if total.shape != (self.size,):
            raise ShapeError(f"a release of these counts has shape ({self.size},), got {total.shape}")
        return tuple(self._open(part) for part in total.reshape(len(self.patterns), self.block))

    def _open(self, part: Floats) -> Opened:
        (w0, w1, w2), (rows, columns), n = self.weights, self._pairs, len(self.free)
        records, spins = float(part[0]) / w0, part[1 : 1 + n] / w1
        products = np.zeros((n, n))
        products[rows, columns] = part[1 + n :] / w2
        place = {bit: at for at, bit in enumerate(self.free)}
        for i, j, a, b in self.impossible:
            if i in place and j in place:
                x, y, u, v = place[i], place[j], 1 - 2 * a, 1 - 2 * b
                products[x, y] = -u * v * (records + u * spins[x] + v * spins[y])
        products += products.T
        products[np.diag_indices(n)] = records
        return Opened(records, spins, products)

    def deviations(self, noise: float) -> Deviations:
        """Of each kind of sum when every entry of the release has noise of this standard deviation."""
        w0, w1, w2 = self.weights
        return Deviations(noise / w0, noise / w1, noise / w2)


def exclusive(words: Sequence[tuple[int, NDArray[np.integer]]]) -> tuple[tuple[int, int, int, int], ...]:
    """Pairs of bits of one code of which a pattern never occurs; `words` gives each code's first bit and words (L, b).

    Of a pair with two such patterns (bits that determine each other) the first is named.
    """
    found = []
    for first, table in words:
        for i in range(table.shape[1]):
            for j in range(i + 1, table.shape[1]):
                there = {(int(a), int(b)) for a, b in table[:, [i, j]]}
                missing = [(a, b) for a in (0, 1) for b in (0, 1) if (a, b) not in there]
                found += [(first + i, first + j, a, b) for a, b in missing[:1]]
    return tuple(found)
