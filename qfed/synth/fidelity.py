"""How like the real records simulated ones are: distance of their margins, and of single records.

    TVD1 = mean_i  1/2 sum_a  |P_i(a) - Q_i(a)|,      TVD2 = mean_{i<j} 1/2 sum_ab |P_ij(a, b) - Q_ij(a, b)|

over coded bits, the target's included. Real records held out have a distance of their own to those that were counted:
what a perfect copy of the law would show.
Nearest records: for every simulated record the Hamming distances of its bits to the nearest counted record and to the
nearest of as many held-out records. A generator that copies is nearer to the counted ones: `share` above one half.
Source: Platzer, Reutterer, Front. Big Data 4, 679939 (2021), distance to closest record against a holdout.
Shapes  bits (N, n)      Cost  O(N M n) for nearest records      Errors  none of its own
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.neighbors import NearestNeighbors

from qfed.generative.statistics import Bits, PairCounts


def margins_apart(ours: Bits, theirs: Bits) -> tuple[float, float]:
    """(TVD1, TVD2)."""
    apart = np.abs(PairCounts.exact(ours).pairs - PairCounts.exact(theirs).pairs).sum((2, 3)) / 2
    n = len(apart)
    one = float(np.diag(apart).mean())
    return one, float(apart[np.triu_indices(n, 1)].mean()) if n > 1 else one


@dataclass(frozen=True)
class Nearest:
    """Whether simulated records lie nearer to the counted records than to others."""

    share: float
    """Simulated records that are nearer to a counted one (ties count half); one half if nothing is copied."""
    low: float
    high: float
    """What chance alone would leave between them in 95 % of cases (simulated records taken as independent)."""
    identical: float
    """Simulated records whose bits are those of a counted record."""
    identical_held_out: float
    """... of one of as many held-out records: what few bits alone make identical."""
    records: int
    """Counted records, and held-out ones, that were compared."""


def nearest_records(simulated: Bits, counted: Bits, held_out: Bits, rng: np.random.Generator) -> Nearest:
    """Compare with as many counted records as are held out (or the other way round)."""
    size = min(len(counted), len(held_out))
    near, other = (
        _distances(simulated, real[rng.choice(len(real), size, replace=False)]) for real in (counted, held_out)
    )
    share = float(np.mean((near < other) + 0.5 * (near == other)))
    spread = 1.96 * 0.5 * float(np.sqrt(np.mean(near != other) / len(simulated)))
    return Nearest(
        share, 0.5 - spread, 0.5 + spread, float(np.mean(near == 0)), float(np.mean(other == 0)), size
    )  # fmt: skip


def _distances(ours: Bits, theirs: Bits) -> np.ndarray:
    index = NearestNeighbors(n_neighbors=1, metric="manhattan", algorithm="brute").fit(theirs.astype(np.float32))
    return np.asarray(np.rint(index.kneighbors(ours.astype(np.float32))[0][:, 0]), dtype=np.int64)
