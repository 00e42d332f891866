"""Which qubit each wire gets: coupled wires on good couplers, close together, where bits are read well.

    cost(p) = sum over couplings of H(p_u, p_v)  +  sum over pairs of 3 (D - H)(p_u, p_v)  -  sum_w log F_read(p_w)

H is -log F of the coupler, D the same summed along the best path, and three two-qubit gates move a wire by one coupler;
for two qubits apart H is the last step of that path, taken as its mean one. Minimised by annealing over moves of one
wire next to another and exchanges of two, from breadth-first growth at good places.
Source: noise-adaptive mapping, Murali et al., ASPLOS 2019. Departure: annealing instead of an SMT solver.
Shapes  n wires on n of the chip's qubits      Cost  O(q^3) once for q qubits, then starts x steps x O(n^2)
Errors  CircuitError when no connected region is large enough
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import networkx as nx
import numpy as np
import numpy.typing as npt
from scipy.sparse.csgraph import shortest_path

from qfed.errors import CircuitError
from qfed.generative.rigetti.chip import Chip, Coupler
from qfed.generative.statistics import Floats

STEPS = 4000
STARTS = 4
_HOTTEST, _COLDEST = 0.03, 0.0003  # of -log F; a good two-qubit gate costs about 0.005
_LEAST = 1e-6  # length of a perfect coupler, so that a shorter path is still a better one
_APART = 1e3  # between qubits without any path


@dataclass(frozen=True, eq=False)
class _Problem:
    """Costs by qubit index, and how often wires meet."""

    chip: Chip
    gates: Floats
    """Two-qubit gates between wires (n, n)."""

    @cached_property
    def qubits(self) -> list[int]:
        return sorted(self.chip.readout)

    @cached_property
    def graph(self) -> nx.Graph:
        return nx.relabel_nodes(self.chip.graph, {qubit: i for i, qubit in enumerate(self.qubits)})

    @cached_property
    def tables(self) -> tuple[Floats, Floats, Floats]:
        """H and 3 (D - H) between qubits (q, q), and -log F_read (q,)."""
        index = {qubit: i for i, qubit in enumerate(self.qubits)}
        coupled = np.zeros((len(index), len(index)))
        for (u, v), fidelity in self.chip.couplers.items():
            coupled[index[u], index[v]] = coupled[index[v], index[u]] = max(-math.log(fidelity), _LEAST)
        paths = shortest_path(coupled, method="D", directed=False)
        hops = shortest_path(coupled > 0, method="D", directed=False, unweighted=True)
        near = np.isfinite(paths)
        paths, hops = np.where(near, paths, 0.0), np.where(near, hops, 0.0)
        hop = np.where(coupled > 0, coupled, paths / np.maximum(hops, 1))
        apart = np.where(near, 3 * np.where(coupled > 0, 0, paths - hop), _APART)
        reads = np.array([-math.log(self.chip.readout[qubit]) for qubit in self.qubits])
        return hop, apart, reads

    def cost(self, at: npt.NDArray[np.int64]) -> float:
        hop, apart, reads = self.tables
        grid = np.ix_(at, at)
        return float((self.gates * hop[grid]).sum() / 2 + apart[grid][self.gates > 0].sum() / 2 + reads[at].sum())


def place(wires: int, couplings: Sequence[Coupler], chip: Chip, rng: np.random.Generator) -> dict[int, int]:
    """The qubit of each wire 0 .. wires - 1; `couplings` names the pair of every two-qubit gate."""
    gates = np.zeros((wires, wires))
    for u, v in couplings:
        gates[u, v] += 1
        gates[v, u] += 1
    problem = _Problem(chip, gates)
    regions = [part for part in nx.connected_components(problem.graph) if len(part) >= wires]
    if not regions:
        raise CircuitError(
            f"{chip.name} has no connected region of {wires} usable qubits; take fewer bits or another device"
        )
    starts = [_grow(start, problem) for start in _starts(problem, sorted(set().union(*regions)), rng)]
    found = min((_anneal(start, problem, rng) for start in starts), key=lambda one: one[0])
    return {wire: problem.qubits[i] for wire, i in enumerate(found[1])}


def _starts(problem: _Problem, inside: list[int], rng: np.random.Generator) -> list[int]:
    """The qubit with the best neighbourhood, and some at random."""
    graph = problem.graph
    quality = {i: sum(graph[i][j]["fidelity"] for j in graph[i]) - problem.tables[2][i] for i in inside}
    return [max(inside, key=lambda i: quality[i]), *(int(i) for i in rng.choice(inside, size=STARTS - 1))]


def _grow(start: int, problem: _Problem) -> npt.NDArray[np.int64]:
    """Wires in breadth-first order of their couplings onto free neighbours of what is placed."""
    wanted: Any = nx.from_numpy_array(problem.gates)
    graph = problem.graph
    at: dict[int, int] = {}
    for part in sorted(nx.connected_components(wanted), key=len, reverse=True):
        centre = min(nx.center(wanted.subgraph(part)))
        for wire in [centre, *(child for _, child in nx.bfs_edges(wanted, centre, sort_neighbors=sorted))]:
            anchors = [at[other] for other in wanted[wire] if other in at] or list(at.values())
            taken = set(at.values())
            free = [i for anchor in anchors for i in graph[anchor] if i not in taken]
            free = free or [i for anchor in taken for i in graph[anchor] if i not in taken] or [start]
            at[wire] = min(free)
    return np.array([at[wire] for wire in range(len(at))])


def _anneal(
    at: npt.NDArray[np.int64], problem: _Problem, rng: np.random.Generator
) -> tuple[float, npt.NDArray[np.int64]]:
    now = problem.cost(at)
    best = (now, at.copy())
    wires, around = len(at), [sorted(problem.graph[i]) for i in range(len(problem.qubits))]
    holder = {int(i): wire for wire, i in enumerate(at)}
    for step in range(STEPS if wires > 1 else 0):
        heat = _HOTTEST * (_COLDEST / _HOTTEST) ** (step / STEPS)
        wire, other = int(rng.integers(wires)), int(rng.integers(wires))
        goal = around[int(at[other])][int(rng.integers(len(around[int(at[other])])))]
        from_, tenant = int(at[wire]), holder.get(goal)
        if goal == from_:
            continue
        at[wire] = goal
        if tenant is not None:
            at[tenant] = from_
        then = problem.cost(at)
        if then <= now or rng.random() < math.exp((now - then) / heat):
            now = then
            holder.pop(from_)
            holder[goal] = wire
            if tenant is not None:
                holder[from_] = tenant
            if now < best[0]:
                best = (now, at.copy())
        else:
            at[wire] = from_
            if tenant is not None:
                at[tenant] = goal
    return best
