"""The built-in circuits, as PennyLane quantum functions with the shapes of their weights.

    <Z_w>  of  U(inputs, weights) V|0...0>      for every wire w,      V = prod_w RY(-pi/2)

Every circuit takes `inputs` (W,), or (B, W) where PennyLane broadcasts, in radians, and returns expectations in
[-1, 1]. The names are those of `qfed.config.CIRCUITS`; `circuit_of` also takes a user's own (`qfed.models.own`).

V makes an encoding by RY(x) read sin(x) instead of cos(x): at small angles, where encoder and weights start, cosine is
flat and even, so that neither the sign of a feature nor its gradient gets through. Trained entanglers (CRY, Ising) are
the identity at weight zero, so small initial weights make the whole block the identity: the start that Grant et al.,
Quantum 3, 214 (2019) ask for, by angles near zero instead of by pairs of inverse blocks. The fixed CNOTs or CZs of the
published circuits are not: a ring of CNOTs turns Z_w into a product of several Z before anything is learned. (What both
are worth under differential privacy: the commit that set them.)
The last rotations about Z commute with a measured Z: their weights have gradient zero.

PennyLane is imported by the functions, not here: the classical twin only needs to know how many weights there are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from qfed.config import ModelConfig
from qfed.models import own
from qfed.models.qcnn import qcnn_layout, qcnn_operations

QuantumFunction = Callable[..., Any]


QUARTER_TURN = math.pi / 2
"""Data turn a wire by at most this over all its encodings: sine is monotone there."""
COSINE_ANGLE = math.pi / 3
KERNEL_ANGLE = 0.8
"""Bandwidth of the kernel features for coordinates in [-1, 1], chosen on embedded data (the commit that set it)."""


@dataclass(frozen=True)
class Circuit:
    """A quantum function `function(inputs, **weights)`, what it takes and how many numbers it returns."""

    function: QuantumFunction
    weight_shapes: Mapping[str, tuple[int, ...]]
    outputs: int
    angle_limit: float = QUARTER_TURN
    """Largest angle by which data turn a wire, unless `model.angle_limit` says another one."""
    centres: Mapping[str, float] = field(default_factory=dict)
    """Mean of a weight's initial values, where it is not 0."""

    @property
    def size(self) -> int:
        """Number of trainable weights."""
        return sum(math.prod(shape) for shape in self.weight_shapes.values())


def reuploading(wires: int, layers: int) -> Circuit:
    """Data re-uploading: the inputs are encoded again in front of every trainable block.

        U = prod_l  CRY-ring . prod_w Rot(weights[l, 3 w:3 w + 3]) RY(inputs[w]),     CRY angles weights[l, 3 W:]

    Source: Perez-Salinas, Cervera-Lierta, Gil-Fuster, Latorre, Quantum 4, 226 (2020). Departures: one feature a wire,
    an RY rotation for the data; a ring of trained CRY instead of CZ (the rings of controlled rotations of Sim,
    Johnson, Aspuru-Guzik, Adv. Quantum Technol. 2, 1900070, 2019). Weights (L, 3 W + pairs).
    """

    def function(inputs: Any, weights: Any) -> Any:
        import pennylane as qml

        _tilt(wires)
        for layer in range(layers):
            for wire in range(wires):
                qml.RY(inputs[..., wire], wires=wire)
            _block(wires, weights[layer])
        return _all_z(wires)

    return Circuit(function, {"weights": (layers, _block_size(wires))}, wires, QUARTER_TURN / layers)


def scaled_reuploading(wires: int, layers: int) -> Circuit:
    """Data re-uploading with a trained scale for every feature and layer: RY(scales[l, w] inputs[w]).

    Source: Perez-Salinas et al. (above), whose blocks are U(theta + w o x). Departures: those of `reuploading`.
    Weights (L, 3 W + pairs), scales (L, W), which start around 1.
    """

    def function(inputs: Any, weights: Any, scales: Any) -> Any:
        import pennylane as qml

        _tilt(wires)
        for layer in range(layers):
            for wire in range(wires):
                qml.RY(inputs[..., wire] * scales[layer, wire], wires=wire)
            _block(wires, weights[layer])
        return _all_z(wires)

    shapes = {"weights": (layers, _block_size(wires)), "scales": (layers, wires)}
    return Circuit(function, shapes, wires, QUARTER_TURN / layers, {"scales": 1.0})


def strongly_entangling(wires: int, layers: int) -> Circuit:
    """One encoding by RY, then `qml.StronglyEntanglingLayers` (rings that reach further in each layer).

    Source: Schuld, Bocharov, Svore, Wiebe, Phys. Rev. A 101, 032308 (2020); Farhi, Neven, arXiv:1802.06002 (2018).
    Departures: angle encoding instead of amplitude encoding; CZ, which leaves a measured Z alone, for the controlled
    gates. Weights (L, W, 3).
    """

    def function(inputs: Any, weights: Any) -> Any:
        import pennylane as qml

        _tilt(wires)
        qml.AngleEmbedding(inputs, wires=range(wires), rotation="Y")
        qml.StronglyEntanglingLayers(weights, wires=range(wires), imprimitive=qml.CZ)
        return _all_z(wires)

    return Circuit(function, {"weights": (layers, wires, 3)}, wires)


def basic_entangler(wires: int, layers: int) -> Circuit:
    """One encoding by RY, then `qml.BasicEntanglerLayers`: a rotation RX a wire and a CNOT ring, a layer.

    Source: the hardware-efficient ansatz of Kandala et al., Nature 549, 242 (2017). Departure: rotations about one
    axis and a CNOT ring, so a third of the weights; the published start, without V. Weights (L, W).
    """

    def function(inputs: Any, weights: Any) -> Any:
        import pennylane as qml

        qml.AngleEmbedding(inputs, wires=range(wires), rotation="Y")
        qml.BasicEntanglerLayers(weights, wires=range(wires))
        return _all_z(wires)

    return Circuit(function, {"weights": (layers, wires)}, wires, COSINE_ANGLE)


def qcnn(wires: int, layers: int) -> Circuit:
    """Quantum convolution: shared two-wire filters, pooling by controlled rotations; see `qfed.models.qcnn`."""
    layout = qcnn_layout(wires, layers)

    def function(inputs: Any, filters: Any, pools: Any) -> Any:
        import pennylane as qml

        _tilt(wires)
        qml.AngleEmbedding(inputs, wires=range(wires), rotation="Y")
        qcnn_operations(layout, filters, pools)
        return [qml.expval(letter(wire)) for wire in layout.left for letter in (qml.X, qml.Y, qml.Z)]

    stages = len(layout.stages)
    return Circuit(function, {"filters": (stages, 15), "pools": (stages, 2)}, 3 * len(layout.left))


def iqp(wires: int, layers: int) -> Circuit:
    """A fixed feature map, without weights: X, Y and Z of every wire after `qml.IQPEmbedding`, `layers` times.

        U = prod_l  prod_(w, v) exp(-i x_w x_v Z_w Z_v / 2) prod_w RZ(x_w) H

    Source: Havlicek et al., Nature 567, 209 (2019); the local expectations as features: Huang et al., Nat. Commun. 12,
    2631 (2021). Departure: pairs on a ring instead of all pairs. With one layer Z is 0 and left out.
    """
    letters = "XYZ" if layers > 1 else "XY"

    def function(inputs: Any) -> Any:
        import pennylane as qml

        qml.IQPEmbedding(inputs, wires=range(wires), n_repeats=layers, pattern=_ring(wires))
        return [qml.expval(getattr(qml, letter)(wire)) for letter in letters for wire in range(wires)]

    return Circuit(function, {}, len(letters) * wires, angle_limit=KERNEL_ANGLE)


BUILT_IN: Mapping[str, Callable[[int, int], Circuit]] = MappingProxyType(
    {
        "reuploading": reuploading,
        "scaled_reuploading": scaled_reuploading,
        "strongly_entangling": strongly_entangling,
        "basic_entangler": basic_entangler,
        "qcnn": qcnn,
        "iqp": iqp,
    }
)


def circuit_of(config: ModelConfig) -> Circuit:
    """The configured circuit; raises CircuitError for a user's own that does not fit."""
    if config.circuit in BUILT_IN:
        return BUILT_IN[config.circuit](config.wires, config.layers)
    function, shapes = own.load_circuit(config.circuit), dict(config.weight_shapes or {})
    return Circuit(function, shapes, own.check(function, shapes, config.wires, config.circuit))


def _tilt(wires: int) -> None:
    import pennylane as qml

    for wire in range(wires):
        qml.RY(-math.pi / 2, wires=wire)


def _block(wires: int, weights: Any) -> None:
    """Rot on every wire, then a ring of CRY; weights (3 W + pairs,)."""
    import pennylane as qml

    for wire in range(wires):
        qml.Rot(weights[3 * wire], weights[3 * wire + 1], weights[3 * wire + 2], wires=wire)
    for place, pair in enumerate(_ring(wires), 3 * wires):
        qml.CRY(weights[place], wires=pair)


def _block_size(wires: int) -> int:
    return 3 * wires + len(_ring(wires))


def _all_z(wires: int) -> Any:
    import pennylane as qml

    return [qml.expval(qml.Z(wire)) for wire in range(wires)]


def _ring(wires: int) -> list[list[int]]:
    # Two wires have one bond, not two.
    return [[wire, (wire + 1) % wires] for wire in range(wires if wires > 2 else wires - 1)]
