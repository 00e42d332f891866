"""Pair counts: what a generator sees of the data, and all that it sees.

    pairs[i, j, a, b] = P[bit_i = a, bit_j = b],     spin s = 1 - 2 bit,   m_i = <s_i>,   m_ij = <s_i s_j>
    pairs[i, j, a, b] = (1 + u m_i + v m_j + u v m_ij) / 4,     u = 1 - 2a,  v = 1 - 2b

Released counts carry noise, so tables may be negative and disagree. They are projected: least squares onto tables that
agree in their totals and one-way margins (closed form, since 1, u, v and u v are orthogonal: every component is the
mean of its estimates), then m_i into [-1, 1] and m_ij into the Frechet bounds
|m_i + m_j| - 1 <= m_ij <= 1 - |m_i - m_j|, which is the projection of each table for given margins.
Source: Barak et al., PODS 2007 (Fourier components of released tables). Departure: consistency of pairs only; whether
some joint distribution has all of these pairs at once is not decided (that is NP-hard).
Shapes  bits (N, n) in {0, 1}; pairs (n, n, 2, 2), [i, i] holds the margin of bit i on its diagonal
Units   pairs: probabilities; records, stddev: records      Cost  O(N n^2) to count, O(n^2) to project
Errors  ShapeError for arrays of other shapes, DataError for bits that are not 0 or 1
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from qfed.errors import DataError, ShapeError

Bits = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

NO_PRIVACY: Mapping[str, Any] = {"mode": "off", "guarantee": "none: exact counts of real records, not protected"}
"""The statement that goes with exact counts."""


@dataclass(frozen=True, eq=False)
class PairCounts:
    """Valid, mutually consistent one- and two-way margins of coded records; make it with one of the class methods."""

    bits: tuple[str, ...]
    """Names of the bits."""
    pairs: Floats
    """Joint frequencies (n, n, 2, 2); each table is nonnegative and sums to 1."""
    records: float
    """Estimated number of records, at least 1."""
    stddev: float
    """Standard deviation of the noise in one cell of a pair's table, in records; 0 if exact."""
    privacy: Mapping[str, Any] = field(default_factory=lambda: dict(NO_PRIVACY))
    """The privacy statement, in JSON's types."""
    code: npt.NDArray[np.bool_] | None = None
    """Pairs (n, n) of one column's code whose table follows from the coding and the margins; None if there are none."""

    def __post_init__(self) -> None:
        n = len(self.bits)
        if self.pairs.shape != (n, n, 2, 2) or n == 0:
            raise ShapeError(f"pairs of {n} bits have shape ({n}, {n}, 2, 2), got {self.pairs.shape}; name every bit")

    @classmethod
    def exact(cls, bits: npt.NDArray[Any], names: Sequence[str] | None = None) -> Self:
        """Count the records (N, n) themselves: no noise, no privacy."""
        checked = checked_bits(bits)
        spins = 1.0 - 2.0 * checked
        labels = tuple(names) if names is not None else tuple(f"bit{i}" for i in range(checked.shape[1]))
        return cls.of_moments(labels, len(checked), spins.sum(0), spins.T @ spins, 0.0, NO_PRIVACY)

    @classmethod
    def of_counts(
        cls, bits: Sequence[str], counts: npt.NDArray[Any], stddev: float, privacy: Mapping[str, Any]
    ) -> Self:
        """From noisy counts (n, n, 2, 2) of pairs i != j; what stands at i = i counts only when n is 1.

        `stddev` is that of the noise in one cell. A pair may be given in one half only ([i, j], i < j): leave the other
        half exactly 0.
        """
        n = len(bits)
        table = np.asarray(counts, dtype=np.float64)
        if table.shape != (n, n, 2, 2):
            raise ShapeError(f"counts of {n} bits have shape ({n}, {n}, 2, 2), got {table.shape}")
        if n == 1:
            zero, one = table[0, 0].sum(1)
            return cls.of_moments(bits, zero + one, np.array([zero - one]), np.eye(1), stddev, privacy)
        mirrored = table.transpose(1, 0, 3, 2)
        both = (np.abs(table).sum((2, 3)) > 0) & (np.abs(mirrored).sum((2, 3)) > 0)
        table = (table + mirrored) / np.where(both, 2.0, 1.0)[:, :, None, None]
        off = ~np.eye(n, dtype=np.bool_)
        total = table.sum((2, 3))[off].mean()
        sums = np.where(off, table[:, :, 0, :].sum(2) - table[:, :, 1, :].sum(2), 0).sum(1) / (n - 1)
        products = table[:, :, 0, 0] + table[:, :, 1, 1] - table[:, :, 0, 1] - table[:, :, 1, 0]
        return cls.of_moments(bits, float(total), sums, products, stddev, privacy)

    @classmethod
    def of_moments(
        cls,
        bits: Sequence[str],
        records: float,
        sums: npt.NDArray[Any],
        products: npt.NDArray[Any],
        stddev: float,
        privacy: Mapping[str, Any],
        code: npt.NDArray[np.bool_] | None = None,
    ) -> Self:
        """From (noisy) sums over records: their number, s_i (n,), s_i s_j (n, n; its diagonal is ignored)."""
        n, count = len(bits), max(float(records), 1.0)
        if np.shape(sums) != (n,) or np.shape(products) != (n, n):
            raise ShapeError(
                f"moments of {n} bits are sums ({n},) and products ({n}, {n}), got {np.shape(sums)} and "
                f"{np.shape(products)}"
            )
        mean = np.clip(np.asarray(sums, dtype=np.float64) / count, -1.0, 1.0)
        pair = np.asarray(products, dtype=np.float64) / count
        return cls(tuple(bits), _tables(mean, (pair + pair.T) / 2), count, float(stddev), dict(privacy), code)

    @property
    def coded(self) -> npt.NDArray[np.bool_]:
        """`code` as an array (n, n)."""
        return np.zeros((len(self.bits),) * 2, np.bool_) if self.code is None else self.code

    @property
    def ones(self) -> Floats:
        """P[bit_i = 1], (n,)."""
        return np.asarray(self.pairs[np.arange(len(self.bits)), np.arange(len(self.bits)), 1, 1])

    @property
    def means(self) -> Floats:
        """m_i = <s_i>, (n,)."""
        return 1.0 - 2.0 * self.ones

    @property
    def correlations(self) -> Floats:
        """m_ij = <s_i s_j>, (n, n), ones on the diagonal."""
        p = self.pairs
        return np.asarray(p[:, :, 0, 0] + p[:, :, 1, 1] - p[:, :, 0, 1] - p[:, :, 1, 0])

    def shrunk(self, threshold: float = 1.5) -> PairCounts:
        """Pairs whose covariance is below `threshold` standard deviations of its noise made independent.

        The noise of N m_ij is 2 x stddev (four cells). Exact counts come back as they are.
        """
        if self.stddev == 0:
            return self
        mean, pair = self.means, self.correlations
        product = np.outer(mean, mean)
        noise = 2.0 * self.stddev / self.records
        kept = np.where(np.abs(pair - product) < threshold * noise, product, pair)
        return PairCounts(self.bits, _tables(mean, kept), self.records, self.stddev, self.privacy, self.code)


def checked_bits(bits: npt.NDArray[Any]) -> Bits:
    """The records as uint8 (N, n); raises ShapeError or DataError."""
    array = np.asarray(bits)
    if array.ndim != 2 or 0 in array.shape:
        raise ShapeError(f"coded records have shape (N, n) with N, n >= 1, got {array.shape}")
    if not np.isin(array, (0, 1)).all():
        raise DataError(f"coded records hold 0 and 1 only, got {array[~np.isin(array, (0, 1))][0]}; encode them first")
    return array.astype(np.uint8)


def _tables(mean: Floats, pair: Floats) -> Floats:
    """(n, n, 2, 2) from m_i in [-1, 1] and any m_ij, which is brought into its Frechet bounds."""
    n = len(mean)
    row, column = mean[:, None], mean[None, :]
    bounded: Floats = np.clip(pair, np.abs(row + column) - 1, 1 - np.abs(row - column))
    bounded[np.arange(n), np.arange(n)] = 1.0
    sign = np.array([1.0, -1.0])
    u, v = sign[:, None], sign[None, :]
    tables: Floats = (
        1 + row[:, :, None, None] * u + column[:, :, None, None] * v + bounded[:, :, None, None] * (u * v)
    ) / 4
    return np.asarray(np.maximum(tables, 0.0))
