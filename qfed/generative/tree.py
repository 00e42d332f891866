"""Chow-Liu tree: the tree of pairs that tells most, and the law that it stands for.

    I_ij = sum_ab P_ij(a, b) log(P_ij(a, b) / (P_i(a) P_j(b))),     T = maximum spanning tree of I
    P[b] = P_root(b_root) prod_{(u, v) in T} P[b_v | b_u]

Source: Chow, Liu, IEEE Trans. Inf. Theory 14, 462 (1968).
Shapes  pairs (n, n, 2, 2), order (n - 1, 2)      Cost  O(n^2 log n)      Errors  none of its own
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree
from scipy.stats import entropy

from qfed.generative.statistics import Bits, Floats, PairCounts


@dataclass(frozen=True, eq=False)
class Tree:
    """A rooted tree over n bits: every edge leads from a bit that is known by then."""

    root: int
    order: npt.NDArray[np.int64]
    """Edges (n - 1, 2) as (from, to), in breadth-first order from the root."""
    start: float
    """P[bit_root = 1]."""
    given: Floats
    """P[bit_to = 1 | bit_from = a] of each edge, (n - 1, 2)."""

    @classmethod
    def of(cls, stats: PairCounts) -> Self:
        """The tree of these pair counts, rooted at the middle of its longest path."""
        n = len(stats.bits)
        if n == 1:
            return cls(0, np.zeros((0, 2), np.int64), float(stats.ones[0]), np.zeros((0, 2)))
        told = mutual_information(stats)
        # SciPy takes 0 for "no edge", and independent bits tell each other nothing: every weight is kept above 0.
        weights = np.triu(1.0 + told.max() - told, 1)
        edges = minimum_spanning_tree(weights)
        both = edges + edges.T
        path = _longest_path(both)
        root = path[len(path) // 2]
        reached, before = breadth_first_order(both, root, directed=False)
        order = np.array([(before[bit], bit) for bit in reached[1:]], dtype=np.int64)
        joint = stats.pairs[order[:, 0], order[:, 1]]
        total = joint.sum(2)
        # A value that never occurs has no conditional; the margin stands in, and is never asked for.
        margin = np.broadcast_to(stats.ones[order[:, 1]][:, None], total.shape)
        given = np.divide(joint[:, :, 1], total, out=margin.copy(), where=total > 0)
        return cls(root, order, float(stats.ones[root]), np.asarray(given))

    def sample(self, count: int, rng: np.random.Generator) -> Bits:
        """`count` records (count, n)."""
        out = np.zeros((count, len(self.order) + 1), np.uint8)
        out[:, self.root] = rng.random(count) < self.start
        for (known, new), chance in zip(self.order, self.given, strict=True):
            out[:, new] = rng.random(count) < chance[out[:, known]]
        return out


def mutual_information(stats: PairCounts) -> Floats:
    """I (n, n) in nats, 0 on the diagonal."""
    joint = stats.pairs
    # Each table's own margins: those of all tables agree up to rounding only, and a margin of 0 must be 0 in its table.
    product = joint.sum(axis=3)[..., :, None] * joint.sum(axis=2)[..., None, :]
    told = np.asarray(entropy(joint.reshape(*joint.shape[:2], 4), product.reshape(*joint.shape[:2], 4), axis=2))
    told[np.arange(len(told)), np.arange(len(told))] = 0.0
    return np.asarray(np.maximum(told, 0.0))


def _longest_path(edges: Any) -> list[int]:
    """From a bit that is farthest from any bit to the bit that is farthest from it (in steps)."""
    end = int(breadth_first_order(edges, 0, directed=False)[0][-1])
    reached, before = breadth_first_order(edges, end, directed=False)
    path = [int(reached[-1])]
    while path[-1] != end:
        path.append(int(before[path[-1]]))
    return path
