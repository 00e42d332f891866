"""Does a circuit have gradients to learn from? Their variance over random weights and inputs.

    v[j] = mean over outputs m of Var_{theta, x} [ d out_m / d theta_j ]

In a barren plateau v decays like 2^-W: a Haar-random circuit has Var <P> = 1 / (2^W + 1) for a Pauli word P, and
its gradients are no larger. Shallow circuits, local observables and small initial angles avoid it.
Source  McClean et al., Nat. Commun. 9, 4812 (2018); Cerezo et al., Nat. Commun. 12, 1791 (2021). Departure: the
        mean over outputs instead of one cost function; the verdict compares the largest v with a floor.
Units   variances of d out / d radian.      Cost  draws sweeps of the kernel, of 8 records an output.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from qfed.errors import CircuitError
from qfed.quantum.layer import QuantumLayer

_LOG = logging.getLogger("qfed.quantum")
_RECORDS = 8


@dataclass(frozen=True)
class Trainability:
    """Variances (P,) of the gradient of each weight, in the order of the flattened weights."""

    variances: Tensor
    largest: float
    random_circuit: float  # 1 / (2^W + 1)
    floor: float

    @property
    def barren(self) -> bool:
        """Whether even the weight with the largest gradients has next to none; a circuit without weights is not."""
        return len(self.variances) > 0 and self.largest < self.floor


def trainability(
    circuit: QuantumLayer,
    features: int | None = None,
    *,
    generator: torch.Generator | None = None,
    draws: int = 100,
    weight_range: float = 2 * math.pi,
    input_range: float = 2 * math.pi,
    around_present: bool = False,
    floor: float = 1e-3,
) -> Trainability:
    """Measure a circuit's gradient variances, and warn (log "qfed.quantum") where they are below `floor`.

    Weights are drawn uniformly from an interval of length `weight_range` around 0, or around the layer's present
    weights (a small range then judges a small-angle initialisation); inputs from [-input_range / 2, input_range / 2).
    `features` is the number of inputs of a record: the one that the layer has run with, or that its wires suggest,
    unless given. Without a `generator` it is one with seed 0, so that the same circuit gives the same figures. Raises
    CircuitError for fewer than 2 draws, for something else than a QuantumLayer, or when `features` has to be given.
    """
    if not isinstance(circuit, QuantumLayer):
        raise CircuitError(
            f"trainability takes a QuantumLayer, got circuit={type(circuit).__name__}; wrap a QNode or function as "
            "QuantumLayer(function, weight_shapes, wires=...), or give the layer of a model"
        )
    if draws < 2:
        raise CircuitError(f"a variance needs at least 2 draws, got draws={draws}; 100 is a good number")
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    features = _features(circuit) if features is None else features
    runner = circuit.runner(features)
    width = runner.layout(features).width
    present = circuit.flat_weights(torch.zeros((), dtype=torch.float64)).detach().cpu()
    count = present.shape[0]
    centre = present if around_present else torch.zeros(count, dtype=torch.float64)
    basis = torch.eye(width, dtype=torch.float64).repeat_interleave(_RECORDS, dim=0)
    gradients = []
    for _ in range(draws if count else 0):
        x = (torch.rand(_RECORDS, features, generator=generator, dtype=torch.float64) - 0.5) * input_range
        w = centre + (torch.rand(count, generator=generator, dtype=torch.float64) - 0.5) * weight_range
        _, pull = runner.per_sample(x.repeat(width, 1), w)
        gradients.append(pull(basis)[1].reshape(width, _RECORDS, count))
    # (outputs, draws * records, P) -> (P,)
    variances = torch.cat(gradients, dim=1).var(dim=1).mean(dim=0) if gradients else torch.zeros(0)
    wires = len(circuit.wires) if circuit.wires is not None else features
    found = Trainability(variances, float(variances.max()) if count else 0.0, 1 / (2**wires + 1), floor)
    if found.barren:
        _LOG.warning(
            "barren plateau: the largest gradient variance of the circuit is %.2g (a random circuit on %d wires has "
            "%.2g); use fewer layers or wires, local observables, or initial angles near 0",
            found.largest,
            wires,
            found.random_circuit,
        )
    return found


def _features(circuit: QuantumLayer) -> int:
    """Inputs of a record: as the layer has run with, one a wire, or an amplitude each; raises CircuitError."""
    if len(circuit.compiled_for) == 1:
        return circuit.compiled_for[0]
    wires = None if circuit.wires is None else len(circuit.wires)
    for features in () if wires is None else (wires, 2**wires):
        try:
            circuit.runner(features)
        except CircuitError:
            continue
        return features
    raise CircuitError(
        f"the number of features cannot be told from the circuit, which has wires={circuit.wires}; give it: "
        "trainability(circuit, features=...)"
    )
