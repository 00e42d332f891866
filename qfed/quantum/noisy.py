"""Noise of a simulated device, as channels in the circuit that a density-matrix simulator runs.

    gate -> depolarising (p), amplitude damping (g) on each of its wires        after decomposition, see `GATES`
    measurement in the basis of its observable -> bit flip (r) on its wires

Source  PennyLane's noise models (`qml.NoiseModel`, `qml.add_noise`); channels as in Nielsen, Chuang, chapter 8.
Departure: readout error is a bit flip after the rotation into the measured basis (observables that do not commute are
measured in circuits of their own), since a processor reads bits; `default.mixed` has an option for it, which PennyLane
0.45 does not run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pennylane as qml

from qfed.config import NoiseConfig

GATES = frozenset({"RX", "RY", "RZ", "CNOT", "CZ", "Hadamard", "PauliX", "PauliY", "PauliZ", "S", "T", "PhaseShift"})
"""What counts as one gate; anything else is decomposed into these first."""

Tapes = tuple[Sequence[Any], Callable[[Any], Any]]


def with_noise(circuit: Any, noise: NoiseConfig) -> Any:
    """A QNode that has the noise in it."""
    return noise_transform(circuit, noise)


@qml.transform  # type: ignore[untyped-decorator,unused-ignore]
def noise_transform(tape: Any, noise: NoiseConfig) -> Tapes:
    """The same as a transform, tape by tape."""
    if noise.in_gates:
        (tape,), _ = qml.transforms.decompose(tape, gate_set=set(GATES))
        (tape,), _ = qml.add_noise(tape, _model(noise))
    if not noise.readout_error:
        return (tape,), lambda results: results[0]
    parts, join = qml.transforms.split_non_commuting(tape)
    return [_read_out(part, noise.readout_error) for part in parts], join


def _read_out(tape: Any, rate: float) -> Any:
    (tape,), _ = qml.transforms.diagonalize_measurements(tape)
    wires = sorted({wire for measured in tape.measurements for wire in measured.wires}, key=str)
    flips = [qml.BitFlip(rate, wires=wire) for wire in wires]
    return tape.copy(operations=[*tape.operations, *flips])


def _model(noise: NoiseConfig) -> Any:
    def channels(op: Any, **_: Any) -> None:
        for wire in op.wires:
            if noise.depolarizing:
                qml.DepolarizingChannel(noise.depolarizing, wires=wire)
            if noise.amplitude_damping:
                qml.AmplitudeDamping(noise.amplitude_damping, wires=wire)

    return qml.NoiseModel({qml.BooleanFn(lambda op, **_: op.name in GATES): channels})
