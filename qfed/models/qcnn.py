"""Quantum convolution and pooling on a shrinking set of wires.

    U = prod_s  Pool_s . Filter_s(odd pairs) Filter_s(even pairs)
    Filter(f) = Rot Rot . exp(-i (f12 XX + f13 YY + f14 ZZ) / 2) . Rot Rot           15 angles, shared by all pairs
    Pool(p)   = CRX(p1) X(first) CRZ(p0) X(first),    first wire of a pair -> second     2 angles, shared by all pairs

Source: Cong, Choi, Lukin, Nature Physics 15, 1273 (2019), in the form for classical data of Hur, Kim, Park, Quantum
Mach. Intell. 4, 3 (2022), without mid-circuit measurement: a pooled wire is left alone instead. Departures: the filter
is the general two-qubit gate in its Cartan form (Vatan, Williams, Phys. Rev. A 69, 032315, 2004), which is the identity
at angle zero; pairs close to a ring; X, Y and Z of every wire that is left are measured instead of one Z. Pesah et al.,
Phys. Rev. X 11, 041011 (2021): gradients of a QCNN vanish at most polynomially in the number of wires.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Pair = tuple[int, int]


@dataclass(frozen=True)
class QcnnLayout:
    """Where filters and pools go: a pair (filtered, pooled) a stage, and the wires that are left."""

    stages: tuple[tuple[tuple[Pair, ...], tuple[Pair, ...]], ...]
    left: tuple[int, ...]


def qcnn_layout(wires: int, layers: int) -> QcnnLayout:
    """At most `layers` stages; each halves the wires (rounded up), and two wires are the last pair."""
    stages: list[tuple[tuple[Pair, ...], tuple[Pair, ...]]] = []
    alive = list(range(wires))
    while len(alive) > 1 and len(stages) < layers:
        n = len(alive)
        even = [(alive[i], alive[i + 1]) for i in range(0, n - 1, 2)]
        odd = [(alive[i], alive[(i + 1) % n]) for i in range(1, n if n > 2 else 0, 2)]
        stages.append((tuple(even + odd), tuple(even)))
        alive = [alive[i] for i in range(n) if i % 2 == 1 or i == n - 1]
    return QcnnLayout(tuple(stages), tuple(alive))


def qcnn_operations(layout: QcnnLayout, filters: Any, pools: Any) -> None:
    """Queue the gates; filters (S, 15), pools (S, 2) for S stages."""
    import pennylane as qml

    for stage, (filtered, pooled) in enumerate(layout.stages):
        f, p = filters[stage], pools[stage]
        for a, b in filtered:
            qml.Rot(f[0], f[1], f[2], wires=a)
            qml.Rot(f[3], f[4], f[5], wires=b)
            for place, gate in enumerate((qml.IsingXX, qml.IsingYY, qml.IsingZZ)):
                gate(f[12 + place], wires=[a, b])
            qml.Rot(f[6], f[7], f[8], wires=a)
            qml.Rot(f[9], f[10], f[11], wires=b)
        for a, b in pooled:
            qml.CRZ(p[0], wires=[a, b])
            qml.X(a)
            qml.CRX(p[1], wires=[a, b])
            qml.X(a)
