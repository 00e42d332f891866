"""Gates on wires as gates on qubits: where two wires are apart, SWAPs bring them together along the best couplers.

The law of the measured bits does not change: a SWAP moves wires, and what is read at the end is read where they are.
Paths keep to qubits that hold wires where that is no longer, so that few others are touched.
Cost    three two-qubit gates a SWAP      Errors  CircuitError if two wires are on parts of the device without a path
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import networkx as nx
import numpy as np
import pennylane as qml

from qfed.errors import CircuitError
from qfed.generative.rigetti.chip import Chip
from qfed.generative.rigetti.native import to_native
from qfed.generative.rigetti.placement import place

_HOP = 1e-6  # length of a perfect coupler
_STRANGER = 1e-4  # price of a qubit without a wire


@dataclass(frozen=True, eq=False)
class Compiled:
    """A circuit as the device runs it."""

    operations: tuple[Any, ...]
    """Native gates on qubits."""
    measured: tuple[int, ...]
    """The qubit that is read for each wire."""
    chip: Chip

    @property
    def two_qubit_gates(self) -> int:
        """CZ or iSWAP gates."""
        return sum(len(gate.wires) == 2 for gate in self.operations)


def compiled(operations: Sequence[Any], wires: int, chip: Chip, rng: np.random.Generator) -> Compiled:
    """RY and CZ on wires 0 .. wires - 1, placed, routed and made native."""
    couplings = [tuple(gate.wires) for gate in operations if len(gate.wires) == 2]
    placement = place(wires, couplings, chip, rng)
    routed, at = route(operations, placement, chip)
    native, moved = to_native(routed, chip.native)
    return Compiled(tuple(native), tuple(moved.get(at[wire], at[wire]) for wire in range(wires)), chip)


def route(operations: Sequence[Any], placement: Mapping[int, int], chip: Chip) -> tuple[list[Any], dict[int, int]]:
    """Gates on wires -> gates on qubits, SWAPs among them, and the qubit of each wire at the end."""
    at = dict(placement)
    out: list[Any] = []
    for gate in operations:
        if len(gate.wires) == 2 and not chip.coupled(at[gate.wires[0]], at[gate.wires[1]]):
            for u, v in _way(set(at.values()), at[gate.wires[0]], at[gate.wires[1]], chip):
                out.append(qml.SWAP(wires=[u, v]))
                at = {wire: v if qubit == u else u if qubit == v else qubit for wire, qubit in at.items()}
        out.append(qml.map_wires(gate, {wire: at[wire] for wire in gate.wires}))
    return out, at


def _way(occupied: set[int], start: int, end: int, chip: Chip) -> list[tuple[int, int]]:
    """The SWAPs that bring `start` next to `end`: all couplers of the best path but its worst one."""

    def length(u: int, v: int, _: object) -> float:
        return _HOP - math.log(chip.fidelity(u, v)) + (0 if u in occupied and v in occupied else _STRANGER)

    try:
        path = nx.shortest_path(chip.graph, start, end, weight=length)
    except nx.NetworkXNoPath:
        raise CircuitError(
            f"qubits {start} and {end} of {chip.name} have no path between them; place the wires on one part"
        ) from None
    hops = list(pairwise(path))
    meet = min(range(len(hops)), key=lambda k: chip.fidelity(*hops[k]))
    # From both ends towards the coupler where they meet, which is used once instead of three times.
    return hops[:meet] + [(v, u) for u, v in reversed(hops[meet + 1 :])]
