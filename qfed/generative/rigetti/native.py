"""RY and CZ in what Rigetti's processors do: RX by multiples of pi/2, RZ by any angle, and CZ or iSWAP.

    RY(t)    = RX(-pi/2) RZ(t) RX(pi/2)                        (right to left)
    CNOT_uv  = RY_v(pi/2) CZ_uv RY_v(-pi/2),       SWAP = CNOT_uv CNOT_vu CNOT_uv
    CZ       = SWAP iSWAP (S^-1 x S^-1)            one iSWAP, if the two wires then trade places
    CZ_uv    = RZ_u(pi/2) RZ_v(pi/2) RX_v(pi/2) iSWAP RX_u(pi/2) iSWAP RX_v(pi/2)     two, if they may not

With iSWAP, two CZ on the same pair (with only rotations between, as in every pair beyond the tree) cost one iSWAP each:
the wires trade places twice. All equations hold up to a global phase.
Source: Smith, Curtis, Zeng, arXiv 1608.03355 (Quil); Schuch, Siewert, Phys. Rev. A 67, 032301 (2003) for iSWAP.
Units   angles in radians      Errors  CircuitError for gates other than RY, CZ and SWAP
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pennylane as qml

from qfed.errors import CircuitError
from qfed.generative.rigetti.chip import Native

_QUARTER = math.pi / 2
_TOLERANCE = 1e-9


def to_native(operations: Sequence[Any], native: Native) -> tuple[list[Any], dict[int, int]]:
    """RY, CZ and SWAP on qubits -> native gates, and where each qubit's content is at the end (by qubit)."""
    lowered = _Lowered()
    for k, gate in enumerate(operations):
        if gate.name == "RY":
            lowered.ry(gate.wires[0], float(gate.data[0]))
        elif gate.name == "CZ":
            u, v = gate.wires
            if native == "cz":
                lowered.add(qml.CZ(wires=[lowered.at(u), lowered.at(v)]))
            elif (u, v) in lowered.traded or _again(operations[k + 1 :], u, v):
                lowered.traded ^= {(u, v)}
                lowered.trade(u, v)
            else:
                lowered.iswaps(u, v)
        elif gate.name == "SWAP":
            u, v = gate.wires
            for control, target in ((u, v), (v, u), (u, v)):
                lowered.ry(target, -_QUARTER)
                _cz(lowered, control, target, native)
                lowered.ry(target, _QUARTER)
        else:
            raise CircuitError(f"gate={gate.name} has no native form here; circuits are made of RY, CZ and SWAP")
    return lowered.gates, lowered.place


def is_native(operations: Sequence[Any], native: Native) -> bool:
    """Whether every gate is one that the device does."""
    return all(
        gate.name == "RZ"
        or (gate.name == "RX" and quarter_turns(gate))
        or gate.name == ("CZ" if native == "cz" else "ISWAP")
        for gate in operations
    )


class _Lowered:
    def __init__(self) -> None:
        self.gates: list[Any] = []
        self.place: dict[int, int] = {}
        self.traded: set[tuple[int, int]] = set()
        """Pairs whose CZ left the wires in each other's place, until the second one comes."""

    def at(self, qubit: int) -> int:
        return self.place.setdefault(qubit, qubit)

    def add(self, gate: Any) -> None:
        self.gates.append(gate)

    def rx(self, qubit: int, angle: float) -> None:
        self.add(qml.RX(angle, wires=self.at(qubit)))

    def rz(self, qubit: int, angle: float) -> None:
        turned = math.remainder(angle, 2 * math.pi)
        if abs(turned) > _TOLERANCE:
            self.add(qml.RZ(turned, wires=self.at(qubit)))

    def ry(self, qubit: int, angle: float) -> None:
        if abs(math.remainder(angle, 2 * math.pi)) <= _TOLERANCE:
            return
        self.rx(qubit, _QUARTER)
        self.rz(qubit, angle)
        self.rx(qubit, -_QUARTER)

    def iswap(self, u: int, v: int) -> None:
        self.add(qml.ISWAP(wires=[self.at(u), self.at(v)]))

    def trade(self, u: int, v: int) -> None:
        self.rz(u, -_QUARTER)
        self.rz(v, -_QUARTER)
        self.iswap(u, v)
        self.place[u], self.place[v] = self.at(v), self.at(u)

    def iswaps(self, u: int, v: int) -> None:
        self.rx(v, _QUARTER)
        self.iswap(u, v)
        self.rx(u, _QUARTER)
        self.iswap(u, v)
        self.rx(v, _QUARTER)
        self.rz(u, _QUARTER)
        self.rz(v, _QUARTER)


def _cz(lowered: _Lowered, u: int, v: int, native: Native) -> None:
    if native == "cz":
        lowered.add(qml.CZ(wires=[lowered.at(u), lowered.at(v)]))
    else:
        lowered.iswaps(u, v)


def _again(rest: Sequence[Any], u: int, v: int) -> bool:
    """Whether the next two-qubit gate that touches either wire is a CZ on both, in this order."""
    following = next((gate for gate in rest if len(gate.wires) == 2 and {u, v} & set(gate.wires)), None)
    return following is not None and following.name == "CZ" and tuple(following.wires) == (u, v)


def quarter_turns(gate: Any) -> bool:
    """Whether a rotation is by a multiple of pi/2."""
    return abs(math.remainder(float(gate.data[0]), _QUARTER)) < _TOLERANCE
