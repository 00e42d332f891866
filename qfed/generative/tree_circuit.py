"""A circuit that starts as a Chow-Liu tree: RY at the roots, one CZ for each edge, two for each pair beyond the tree.

    root v             RY_v(t)
    edge u -> v        RY_v(a) CZ_uv RY_v(b):        P[v = 1 | u] = sin^2((b + a) / 2) if u = 0, sin^2((b - a) / 2) else
    further pair u, v  RY_v(a) CZ_uv RY_v(b) CZ_uv:  rotates v by a + b if u = 0, by a - b else

The wire of a child is |0> when its edge comes, and Z RY(a) |0> = RY(-a) |0>: that is why one CZ does for a controlled
rotation that needs two elsewhere. So the tree's law is prepared exactly, and training begins there. An edge between
bits that the counts have as independent is left out, so the tree may be a forest.
Source: Born machines: Benedetti et al., npj Quantum Inf. 5, 45 (2019); the tree: tree.py. Departure: started at the
tree instead of at random, where moment losses stay one to two orders higher.
Shapes  angles (P,), P = roots + 2 (edges + further pairs); probabilities (2^n,), wire 0 the most significant bit
Units   angles in radians      Cost  O((n + pairs) 2^n)      Errors  none of its own
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from qfed.generative.statistics import Floats, PairCounts
from qfed.generative.tree import Tree

_ALIKE = 1e-9  # difference of two conditional probabilities that rounding makes of independent bits


@dataclass(frozen=True)
class TreeCircuit:
    """The gates' places; angles are arguments."""

    order: tuple[tuple[int | None, int], ...]
    """(parent, child) with every parent before its children; a root's parent is None."""
    further: tuple[tuple[int, int], ...] = ()
    """Pairs beyond the tree as (control, target)."""

    @classmethod
    def of(cls, stats: PairCounts) -> Self:
        """The Chow-Liu tree of these counts, without further pairs."""
        tree = Tree.of(stats)
        order: list[tuple[int | None, int]] = [(None, tree.root)]
        for (known, new), (zero, one) in zip(tree.order.tolist(), tree.given.tolist(), strict=True):
            order.append((known if abs(zero - one) > _ALIKE else None, new))
        return cls(tuple(order))

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """The tree's edges as (parent, child)."""
        return tuple((parent, child) for parent, child in self.order if parent is not None)

    @property
    def wires(self) -> int:
        """Bits n."""
        return len(self.order)

    @property
    def parameters(self) -> int:
        """Angles P."""
        return sum(1 if parent is None else 2 for parent, _ in self.order) + 2 * len(self.further)

    @property
    def couplings(self) -> tuple[tuple[int, int], ...]:
        """The pair of every CZ, in the order of the circuit."""
        return self.edges + tuple(pair for pair in self.further for _ in range(2))

    def start(self, stats: PairCounts) -> Floats:
        """Angles (P,) that prepare the tree's law of these counts; the further pairs do nothing yet."""
        angles: list[float] = []
        for parent, child in self.order:
            if parent is None:
                angles.append(_rotation(stats.ones[child]))
                continue
            table = stats.pairs[parent, child]
            given = table[:, 1] / np.maximum(table.sum(1), 1e-12)
            zero, one = _rotation(given[0]), _rotation(given[1])
            angles += [(zero - one) / 2, (zero + one) / 2]
        return np.array(angles + [0.0] * (2 * len(self.further)))

    def apply(self, angles: Any) -> None:
        """Queue the gates on wires 0 .. n - 1; `angles` is anything that can be indexed."""
        import pennylane as qml

        k = 0
        for parent, child in self.order:
            if parent is None:
                qml.RY(angles[k], wires=child)
                k += 1
                continue
            qml.RY(angles[k], wires=child)
            qml.CZ(wires=[parent, child])
            qml.RY(angles[k + 1], wires=child)
            k += 2
        for control, target in self.further:
            for angle in (angles[k], angles[k + 1]):
                qml.RY(angle, wires=target)
                qml.CZ(wires=[control, target])
            k += 2

    def layer(self) -> Any:
        """The probabilities as qfed's own compiled layer: layer(torch.zeros(1, 1)) is (1, 2^n)."""
        import pennylane as qml
        import torch

        from qfed.quantum import QuantumLayer

        def probabilities(inputs: Any, angles: Any) -> Any:
            self.apply(angles)
            return qml.probs(wires=range(self.wires))

        return QuantumLayer(
            probabilities, {"angles": (self.parameters,)}, {"angles": torch.nn.init.zeros_}, wires=self.wires
        ).double()

    def operations(self, angles: Sequence[float]) -> list[Any]:
        """The gates as PennyLane operators with rotations merged: RY and CZ on wires 0 .. n - 1."""
        import pennylane as qml

        out: list[Any] = []
        pending: dict[int, float] = {}
        with qml.QueuingManager.stop_recording():
            gates = qml.tape.make_qscript(self.apply)([float(angle) for angle in angles]).operations
            for gate in [*gates, qml.Barrier(wires=range(self.wires))]:
                if gate.name == "RY":
                    pending[gate.wires[0]] = pending.get(gate.wires[0], 0.0) + gate.data[0]
                    continue
                for wire in gate.wires:  # what was turned has to be turned by now
                    angle = math.remainder(pending.pop(wire, 0.0), 4 * math.pi)
                    if angle != 0.0:
                        out.append(qml.RY(angle, wires=wire))
                if gate.name == "CZ":
                    out.append(gate)
        return out

    def function(self, angles: Sequence[float]) -> Callable[[], None]:
        """The trained circuit as a quantum function without measurements, for any PennyLane device."""
        values = [float(angle) for angle in angles]
        return lambda: self.apply(values)


def _rotation(one: float) -> float:
    """The angle whose RY takes |0> to probability `one` of reading 1."""
    return 2 * math.asin(math.sqrt(min(max(float(one), 0.0), 1.0)))
