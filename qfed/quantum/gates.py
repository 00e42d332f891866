"""PennyLane operations as Pauli rotations.

    gate = global phase * prod exp(-i angle P / 2)

A Clifford gate is the same thing with angles that are multiples of pi/2, e.g.
CNOT = exp(i pi/4 Z_c) exp(i pi/4 X_t) exp(-i pi/4 Z_c X_t). Whatever is not in the table is decomposed by
PennyLane until it is; a gate without decomposition raises CircuitError.
Angles stay what the circuit function computed (floats or torch scalars that carry their autograd graph).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from qfed.errors import CircuitError
from qfed.quantum.pauli import Pauli, word


class Uncompilable(CircuitError):
    """The circuit is sound, but not a product of unitary gates with expectations and probabilities at the end."""


_MAX_DEPTH = 32
_HALF_PI = math.pi / 2


@dataclass(frozen=True, slots=True)
class Turn:
    """exp(-i angle P / 2). `relabels` marks a part of a gate that maps basis states to basis states."""

    pauli: Pauli
    angle: Any
    relabels: bool = False


Wires = Sequence[int]
_Rule = Callable[[Sequence[Any], Wires, dict[str, Any]], list[Turn]]


def _one(letter: str) -> _Rule:
    return lambda p, w, _: [Turn(word([(w[0], letter)]), p[0])]


def _two(letters: str) -> _Rule:
    return lambda p, w, _: [Turn(word(list(zip(w, letters, strict=True))), p[0])]


def _fixed(letter: str, angle: float) -> _Rule:
    return lambda p, w, _: [Turn(word([(w[0], letter)]), angle, relabels=letter == "Z" or angle == math.pi)]


def _controlled_turn(letter: str, angle: Any, w: Wires) -> list[Turn]:
    target = (w[1], letter)
    return [Turn(word([target]), angle / 2), Turn(word([(w[0], "Z"), target]), -angle / 2)]


def _controlled(letter: str) -> _Rule:
    return lambda p, w, _: _controlled_turn(letter, p[0], w)


def _controlled_pauli(letter: str, w: Wires) -> list[Turn]:
    target = (w[1], letter)
    return [
        Turn(word([(w[0], "Z")]), -_HALF_PI, relabels=True),
        Turn(word([target]), -_HALF_PI, relabels=True),
        Turn(word([(w[0], "Z"), target]), _HALF_PI, relabels=True),
    ]


def _rot(p: Sequence[Any], w: Wires, _: dict[str, Any]) -> list[Turn]:
    z, y = word([(w[0], "Z")]), word([(w[0], "Y")])
    return [Turn(z, p[0]), Turn(y, p[1]), Turn(z, p[2])]


def _u2(p: Sequence[Any], w: Wires, _: dict[str, Any]) -> list[Turn]:
    return _rot((p[1], _HALF_PI, p[0]), w, _)


def _u3(p: Sequence[Any], w: Wires, _: dict[str, Any]) -> list[Turn]:
    return _rot((p[2], p[0], p[1]), w, _)


def _crot(p: Sequence[Any], w: Wires, _: dict[str, Any]) -> list[Turn]:
    return [t for letter, a in zip("ZYZ", p, strict=True) for t in _controlled_turn(letter, a, w)]


def _cphase(p: Sequence[Any], w: Wires, _: dict[str, Any]) -> list[Turn]:
    half = p[0] / 2
    first, second = (w[0], "Z"), (w[1], "Z")
    return [Turn(word([first]), half), Turn(word([second]), half), Turn(word([first, second]), -half)]


def _ising_xy(p: Sequence[Any], w: Wires, _: dict[str, Any]) -> list[Turn]:
    return [Turn(word([(w[0], a), (w[1], a)]), -p[0] / 2) for a in "XY"]


def _multi_rz(p: Sequence[Any], w: Wires, _: dict[str, Any]) -> list[Turn]:
    return [Turn(word([(wire, "Z") for wire in w]), p[0])]


def _pauli_rot(p: Sequence[Any], w: Wires, hyper: dict[str, Any]) -> list[Turn]:
    letters = [(wire, a) for wire, a in zip(w, hyper["pauli_word"], strict=True) if a != "I"]
    return [Turn(word(letters), p[0])] if letters else []


def _hadamard(p: Sequence[Any], w: Wires, _: dict[str, Any]) -> list[Turn]:
    return [Turn(word([(w[0], "Y")]), _HALF_PI), Turn(word([(w[0], "X")]), math.pi, relabels=True)]


def _swap(p: Sequence[Any], w: Wires, _: dict[str, Any]) -> list[Turn]:
    return [Turn(word([(w[0], a), (w[1], a)]), _HALF_PI, relabels=True) for a in "XYZ"]


def _iswap(p: Sequence[Any], w: Wires, _: dict[str, Any]) -> list[Turn]:
    return [Turn(word([(w[0], a), (w[1], a)]), -_HALF_PI, relabels=True) for a in "XY"]


def _nothing(p: Sequence[Any], w: Wires, _: dict[str, Any]) -> list[Turn]:
    return []


_RULES: dict[str, _Rule] = {
    **{name: _one(name[-1]) for name in ("RX", "RY", "RZ")},
    "PhaseShift": _one("Z"),
    "U1": _one("Z"),
    "U2": _u2,
    "U3": _u3,
    "Rot": _rot,
    "PauliX": _fixed("X", math.pi),
    "PauliY": _fixed("Y", math.pi),
    "PauliZ": _fixed("Z", math.pi),
    "S": _fixed("Z", _HALF_PI),
    "T": _fixed("Z", math.pi / 4),
    "SX": _fixed("X", _HALF_PI),
    "Hadamard": _hadamard,
    "CNOT": lambda p, w, _: _controlled_pauli("X", w),
    "CY": lambda p, w, _: _controlled_pauli("Y", w),
    "CZ": lambda p, w, _: _controlled_pauli("Z", w),
    "SWAP": _swap,
    "ISWAP": _iswap,
    "CRX": _controlled("X"),
    "CRY": _controlled("Y"),
    "CRZ": _controlled("Z"),
    "CRot": _crot,
    "ControlledPhaseShift": _cphase,
    "IsingXX": _two("XX"),
    "IsingYY": _two("YY"),
    "IsingZZ": _two("ZZ"),
    "IsingXY": _ising_xy,
    "MultiRZ": _multi_rz,
    "PauliRot": _pauli_rot,
    "Identity": _nothing,
    "GlobalPhase": _nothing,
    "Barrier": _nothing,
    "WireCut": _nothing,
    "Snapshot": _nothing,
}


def turns(op: Any, index: dict[Any, int], depth: int = 0) -> Iterator[Turn]:
    """The Pauli rotations of one PennyLane operation, in order of time; `index` maps its wires to blocks.

    Raises CircuitError for what has no unitary decomposition (noise channels, mid-circuit measurements).
    """
    rule = _RULES.get(op.name)
    if rule is not None:
        yield from rule(op.parameters, [index[w] for w in op.wires], op.hyperparameters)
        return
    parts = decomposed(op) if depth < _MAX_DEPTH else None
    if parts is None:
        raise Uncompilable(
            f"the circuit compiler takes unitary gates that decompose into Pauli rotations, got gate={op.name} on "
            f"wires={list(op.wires)}; name a device for it instead: QuantumLayer(qnode, ..., "
            "fallback='default.mixed')"
        )
    for part in parts:
        yield from turns(part, index, depth + 1)


def decomposed(op: Any) -> list[Any] | None:
    """PennyLane's own decomposition of `op`, or None where it has none."""
    import pennylane as qml

    if isinstance(op, (qml.operation.Channel, qml.ops.Conditional)) or not isinstance(op, qml.operation.Operator):
        return None
    if op.has_decomposition:
        return list(op.decomposition())
    if op.has_matrix and op.num_params == 0 and len(op.wires) <= 3:
        return [qml.QubitUnitary(op.matrix(), wires=op.wires)]
    return None
