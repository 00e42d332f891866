"""Run a quantum function on probe values and read off rotations, measurements and where angles come from.

The function is called like PennyLane calls it, on torch tensors of one record, inside a recording queue; no
state is simulated. Every angle then carries the autograd graph that leads back to inputs and weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from qfed.errors import CircuitError
from qfed.quantum.gates import Turn, Uncompilable, turns
from qfed.quantum.pauli import Pauli, word


@dataclass(frozen=True, slots=True)
class Measured:
    """What one measurement returns: a weighted sum of words ("expval", "var") or outcomes of wires ("probs")."""

    kind: str
    words: tuple[tuple[float, Pauli], ...] = ()
    wires: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Recording:
    """One call of the quantum function."""

    wires: int
    turns: tuple[Turn, ...]
    state: Any  # amplitudes of the prepared state on all wires (real tensor), or None for |0...0>
    measured: tuple[Measured, ...]
    returns: str  # "one", "list" or "tuple": what the function returned


# What a quantum function raises when it is called with shapes or wires that do not fit.
_FOREIGN = (ValueError, TypeError, IndexError, KeyError, ArithmeticError)
_STATE_PREPARATIONS = ("AmplitudeEmbedding", "StatePrep")


class Circuit:
    """A quantum function with the order of its wires; knows how to record itself."""

    def __init__(self, func: Callable[..., Any], input_name: str, wires: Sequence[Any] | None) -> None:
        self.func = func
        self.input_name = input_name
        self.wires = None if wires is None else tuple(wires)

    def record(self, inputs: Tensor, weights: Mapping[str, Tensor]) -> Recording:
        """Record one call on inputs (D,), or (1, D) for functions that index a batch dimension."""
        try:
            try:
                return self._record(inputs, weights)
            except IndexError:
                return self._record(inputs.unsqueeze(0), weights)
        except _FOREIGN as error:
            shapes = {name: tuple(w.shape) for name, w in weights.items()}
            raise CircuitError(
                f"the circuit fails on a record of features={inputs.shape[-1]} with weights={shapes}: {error}; make "
                "the inputs and weight_shapes fit its gates and wires"
            ) from error

    def _record(self, inputs: Tensor, weights: Mapping[str, Tensor]) -> Recording:
        import pennylane as qml

        with qml.queuing.AnnotatedQueue() as queue:
            returned = self.func(**{self.input_name: inputs, **weights})
        script = qml.tape.QuantumScript.from_queue(queue)
        if isinstance(returned, (list, tuple)):
            measurements, returns = list(returned), "list" if isinstance(returned, list) else "tuple"
        else:
            measurements, returns = [returned], "one"
        for m in measurements:
            if not isinstance(m, qml.measurements.MeasurementProcess):
                raise CircuitError(
                    "a quantum function returns measurements such as qml.expval(qml.Z(0)), got "
                    f"returned={type(m).__name__}"
                )
        labels = list(self.wires if self.wires is not None else script.wires)
        missing = [w for w in script.wires if w not in labels]
        if missing:
            raise CircuitError(
                f"the circuit acts on wires={missing}, which are not among the wires it was given, {labels}; "
                "declare them on the device or with wires="
            )
        index = {label: i for i, label in enumerate(labels)}
        found: list[Turn] = []
        state = None
        touched: set[Any] = set()
        for op in script.operations:
            if op.name in _STATE_PREPARATIONS:
                if touched & set(op.wires) or state is not None:
                    raise CircuitError(
                        f"{op.name} must come before every gate on its wires={list(op.wires)}, and only once; "
                        "move it to the start of the circuit"
                    )
                state = _spread(op.parameters[0], [index[w] for w in op.wires], len(labels), op.name)
            else:
                found.extend(turns(op, index))
            touched |= set(op.wires)
        return Recording(
            wires=len(labels),
            turns=tuple(_scalar(t) for t in found),
            state=state,
            measured=tuple(_measured(m, index) for m in measurements),
            returns=returns,
        )


def _scalar(turn: Turn) -> Turn:
    angle = turn.angle
    if isinstance(angle, Tensor) and angle.requires_grad:
        if angle.numel() != 1:
            raise CircuitError(
                f"a gate got an angle of shape {tuple(angle.shape)} from one record; a quantum function is written "
                "for one record: index features as inputs[..., i]"
            )
        return Turn(turn.pauli, angle.reshape(()), turn.relabels)
    return Turn(turn.pauli, float(angle), turn.relabels)


def _spread(state: Any, wires: Sequence[int], total: int, name: str) -> Tensor:
    """Amplitudes on some wires (first wire the most significant bit, as PennyLane counts) -> on all wires."""
    amplitudes = torch.as_tensor(state)
    if amplitudes.is_complex():
        if float(amplitudes.detach().imag.abs().max()) > 0:
            raise CircuitError(f"{name} with complex amplitudes is not supported; prepare a real state and add phases")
        amplitudes = amplitudes.real
    amplitudes = amplitudes.reshape(-1)
    k = len(wires)
    index = [sum(((i >> (k - 1 - j)) & 1) << w for j, w in enumerate(wires)) for i in range(2**k)]
    full = torch.zeros(2**total, dtype=torch.float64)
    return full.index_put((torch.tensor(index),), amplitudes.to(torch.float64))


def _measured(m: Any, index: dict[Any, int]) -> Measured:
    import pennylane as qml

    if isinstance(m, qml.measurements.ProbabilityMP):
        if m.obs is not None or m.eigvals() is not None:
            raise Uncompilable("probs of an observable is not supported; rotate the wires and use qml.probs(wires=...)")
        return Measured("probs", wires=tuple(index[w] for w in m.wires) or tuple(range(len(index))))
    if isinstance(m, qml.measurements.ExpectationMP | qml.measurements.VarianceMP) and m.obs is not None:
        kind = "expval" if isinstance(m, qml.measurements.ExpectationMP) else "var"
        return Measured(kind, words=_words(m.obs, index))
    raise Uncompilable(
        f"the circuit compiler measures qml.expval, qml.var and qml.probs, got measurement={type(m).__name__}; "
        "name a device for it instead: QuantumLayer(qnode, ..., fallback='default.qubit')"
    )


def _words(obs: Any, index: dict[Any, int]) -> tuple[tuple[float, Pauli], ...]:
    import pennylane as qml

    sentence = obs.pauli_rep
    if sentence is None and obs.has_matrix and len(obs.wires) <= 6:
        sentence = qml.pauli.pauli_decompose(obs.matrix(), wire_order=obs.wires, pauli=True)
    if sentence is None:
        raise CircuitError(f"observable={obs} has no Pauli decomposition; write it as a sum of Pauli words")
    terms = []
    for letters, coefficient in sentence.items():
        value = complex(coefficient)
        if abs(value.imag) > 1e-9:
            raise CircuitError(f"observable={obs} is not Hermitian: a Pauli word has coefficient={value}")
        terms.append((value.real, word([(index[w], a) for w, a in letters.items()])))
    return tuple(terms)
