"""Further pairs that cost no SWAP: those that a square lattice couples when the tree's edges lie on it.

    maximise  sum over neighbours u, v of misfit_uv  -  much x sum over the tree's edges of (distance - 1)

over places of the wires on a square grid, by annealing. A square lattice has no odd cycle, so pairs an even number of
tree edges apart never qualify, and a node of the tree has four neighbours at most; a tree that does not fit is laid out
as well as it does.
Source: topology-aware choice of ansatz gates is folklore; see Benedetti et al., npj Quantum Inf. 5, 45 (2019), fig. 3.
Shapes  misfit (n, n) symmetric      Cost  O(steps n)      Errors  none of its own
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from qfed.generative.statistics import Floats

Edges = Sequence[tuple[int, int]]

STEPS = 12_000
_STRETCH = 10.0  # price of one cell between the ends of a tree edge, in the largest misfit
_HOTTEST, _COLDEST = 2.0, 0.01
_AROUND = np.array([(0, 1), (1, 0), (0, -1), (-1, 0)])


def lattice_pairs(edges: Edges, misfit: Floats, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Pairs (u, v), u < v, that are neighbours but not joined by the tree, in the best layout found."""
    cells = _layout(edges, misfit / max(float(misfit.max()), 1e-12), rng)
    distance = np.abs(cells[:, None, :] - cells[None, :, :]).sum(2)
    joined = {(min(edge), max(edge)) for edge in edges}
    n = len(cells)
    return [(u, v) for u in range(n) for v in range(u + 1, n) if distance[u, v] == 1 and (u, v) not in joined]


def _layout(edges: Edges, gain: Floats, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Cells (n, 2) of a grid."""
    n = len(gain)
    side = math.ceil(math.sqrt(n))
    cells = np.array([divmod(k, side) for k in range(n)])
    stretch = np.zeros((n, n))
    for u, v in edges:
        stretch[u, v] = stretch[v, u] = _STRETCH
    holder = {tuple(cell): wire for wire, cell in enumerate(cells.tolist())}
    score = 0.0
    best = (0.0, cells.copy())

    def local(wire: int) -> float:
        distance = np.abs(cells - cells[wire]).sum(1)
        return float(gain[wire] @ (distance == 1) - stretch[wire] @ np.maximum(distance - 1, 0))

    for step in range(STEPS if n > 1 else 0):
        heat = _HOTTEST * (_COLDEST / _HOTTEST) ** (step / STEPS)
        wire, other = (int(k) for k in rng.integers(n, size=2))
        goal = cells[other] + _AROUND[int(rng.integers(4))]
        old, tenant = cells[wire].copy(), holder.get(tuple(goal.tolist()))
        if tenant == wire:
            continue
        before = local(wire) + (0.0 if tenant is None else local(tenant))
        cells[wire] = goal
        if tenant is not None:
            cells[tenant] = old
        change = local(wire) + (0.0 if tenant is None else local(tenant)) - before
        if change >= 0 or rng.random() < math.exp(change / heat):
            score += change
            del holder[tuple(old.tolist())]
            holder[tuple(goal.tolist())] = wire
            if tenant is not None:
                holder[tuple(old.tolist())] = tenant
            if score > best[0] + 1e-12:
                best = (score, cells.copy())
        else:
            cells[wire] = old
            if tenant is not None:
                cells[tenant] = goal
    return best[1]
