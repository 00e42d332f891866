"""A trained model in torch's own operations: what an exported file computes, with neither qfed nor PennyLane at hand.

    answers = softmax(module(scale(v)))     classes: probabilities (B, C)
    answers = unscale(module(scale(v)))     regression: values in the target's unit (B,)

v (B, F) are the features in the units of the table (numbers; +1 or -1 a category), so the public ranges travel in the
file. A circuit becomes what it is to a classical computer, real linear algebra on its 2^(W+1) amplitudes
(`qfed.quantum.program`): a rotation by the record is a gather and two multiply-adds, all that lies between two of those
has trained angles and becomes one matrix

    psi -> (cos(a/2) psi + sin(a/2) P psi) M,     a = c + A x + x Q x^T,     Q for feature maps with products, else none

Source  none: the mathematics of `qfed.quantum.torch_path`, as one module without branches, for torch.export.
Cost    O(B R 4^W) for R rotations by the record     Errors  CircuitError for a circuit that has no such form (below)
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from qfed.errors import CircuitError
from qfed.quantum import QuantumLayer
from qfed.quantum.compiled import Compiled
from qfed.quantum.program import Program

_LARGEST, _LARGEST_STATE = 1 << 24, 1 << 11
"""Numbers in all matrices of a circuit (64 MB of file), and amplitudes: 10 wires."""
_TOLERANCE = 1e-9


class PortableCircuit(nn.Module):
    """A compiled circuit with its weights: x (..., D) -> as the QuantumLayer that it stands for."""

    def __init__(self, layer: QuantumLayer, features: int) -> None:
        super().__init__()
        runner = layer.runner(features)
        if not isinstance(runner, Compiled) or runner.state is not None:
            raise CircuitError(
                "this circuit runs on a device or prepares amplitudes from its inputs, which has no form in torch's "
                "own operations; use the model with qfed (qfed predict), or export its twin"
            )
        program, weights = runner.program, layer.flat_weights(torch.zeros(1, dtype=torch.float64)).detach()
        constant, linear, square = _polynomial(runner, weights)
        self._compiled, self._features = runner, features
        self._own = (linear.any(0) | square.any(0)).nonzero().reshape(-1).tolist()
        start, folded = _folded(program, constant, set(self._own))
        own = torch.tensor(self._own, dtype=torch.int64)
        self.constant, self.linear = nn.Buffer(constant[own].float()), nn.Buffer(linear[:, own].float())
        self.square = nn.Buffer(square[:, own].float()) if bool(square.any()) else None
        index, sign = _couplings(program, program.rotations)
        self.start, self.index, self.sign = (
            nn.Buffer(start.float()),
            nn.Buffer(index[own]),
            nn.Buffer(sign[own].float()),
        )
        self.folded = nn.ParameterList(nn.Buffer(matrix.float()) for matrix in folded)
        words, sign = _couplings(program, program.terms)
        self.words = nn.Buffer(words)
        self.observed = nn.Buffer((sign * torch.tensor(program.coefficients).unsqueeze(1)).float())
        self.outputs = nn.Buffer(_one_hot(program.terms[:, 3], program.outputs))
        counts = sum((_one_hot(row, program.outputs) for row in program.outcomes), torch.zeros(program.size, 1))
        self.outcomes = nn.Buffer(counts) if len(program.outcomes) else None

    def forward(self, inputs: Tensor) -> Tensor:
        x = inputs.reshape(-1, self._features)
        angles = x @ self.linear + self.constant
        if self.square is not None:
            angles = angles + (x.unsqueeze(2) * x.unsqueeze(1)).flatten(1) @ self.square
        cosine, sine = torch.cos(angles * 0.5), torch.sin(angles * 0.5)
        psi = torch.ones_like(x[:, :1]) * self.start
        for r, matrix in enumerate(self.folded):
            psi = cosine[:, r : r + 1] * psi + sine[:, r : r + 1] * (self.sign[r] * psi[:, self.index[r]])
            psi = psi if matrix.numel() == 0 else psi @ matrix
        turned = torch.unflatten(psi[:, self.words.flatten()], 1, self.words.shape)
        raw = (psi.unsqueeze(1) * self.observed * turned).sum(2) @ self.outputs
        if self.outcomes is not None:
            half = self.outcomes.shape[0]
            raw = raw + (psi[:, :half].square() + psi[:, half:].square()) @ self.outcomes
        rows = self._compiled.columns(raw)
        return self._compiled.layout(self._features).shape(rows, inputs.shape[:-1])


class Portable(nn.Module):
    """v (B, F) in the table's units -> probabilities (B, C), or values (B,)."""

    def __init__(self, module: nn.Module, schema: Mapping[str, Any]) -> None:
        super().__init__()
        self.scaling = Scaling(schema["columns"]) if schema.get("made", "values") == "values" else None
        self.module = portable(module)
        self.classes = schema["task"] == "classification"
        self.ends = schema.get("target_range")

    def forward(self, records: Tensor) -> Tensor:
        out: Tensor = self.module(records if self.scaling is None else self.scaling(records))
        if self.classes:
            return torch.softmax(out, dim=1)
        value = out[:, 0]
        return value if self.ends is None else self.ends[0] + (value + 1) * (0.5 * (self.ends[1] - self.ends[0]))


class Scaling(nn.Module):
    """The public ranges: v (B, F) in the table's units -> x in [-1, 1], as `qfed.data.scaling` has it."""

    def __init__(self, columns: Sequence[Mapping[str, Any]]) -> None:
        super().__init__()
        low, high, shift, logs, fill = [], [], [], [], []
        for column in columns:
            numeric = column.get("kind", "numeric") == "numeric"
            for _ in [None] if numeric else column["categories"]:
                ends = (float(column["low"]), float(column["high"])) if numeric else (-1.0, 1.0)
                is_log = numeric and column.get("scale") == "log"
                low.append(ends[0])
                high.append(ends[1])
                logs.append(is_log)
                shift.append(ends[1] / 50 if is_log and ends[0] <= 0 else 0.0)
                missing = column.get("missing", "refuse")
                fill.append(float(missing) if numeric and missing != "refuse" else float("nan"))
        self.low, self.high, self.shift, self.fill = (
            nn.Buffer(torch.tensor(values, dtype=torch.float64)) for values in (low, high, shift, fill)
        )
        self.logs = nn.Buffer(torch.tensor(logs))

    def forward(self, records: Tensor) -> Tensor:
        values = records.double()
        values = torch.where(torch.isnan(values), self.fill, values)
        values = torch.minimum(torch.maximum(values, self.low), self.high)
        shifted = [torch.where(self.logs, ends + self.shift, 1.0) for ends in (values, self.low, self.high)]
        value, low, high = (
            torch.where(self.logs, torch.log(inside), ends)
            for inside, ends in zip(shifted, (values, self.low, self.high), strict=True)
        )
        scaled = 2 * ((value - low) / (high - low)) - 1
        return torch.clamp(scaled, -1, 1).float()


def portable(module: nn.Module) -> nn.Module:
    """A copy with every circuit in its portable form, in evaluation mode, that takes no gradient."""
    if isinstance(module, QuantumLayer):
        return _circuit(module)
    found = copy.deepcopy(module)
    for name, layer in list(found.named_modules()):
        if isinstance(layer, QuantumLayer):
            found.set_submodule(name, _circuit(layer))
    return found.eval().requires_grad_(False)


def _circuit(layer: QuantumLayer) -> PortableCircuit:
    (features,) = layer.compiled_for or (None,)
    return PortableCircuit(layer, features or len(layer.wires or ()))


def _folded(program: Program, angles: Tensor, own: set[int]) -> tuple[Tensor, list[Tensor]]:
    """The state (1, 2N) before the first rotation that depends on the record, and after each of those one matrix (2N,
    2N) of all that follow it with the same angle for every record (empty when none does)."""
    index, sign = _couplings(program, program.rotations)
    size = 2 * program.size
    if size > _LARGEST_STATE or len(own) * size * size > _LARGEST:
        raise CircuitError(
            f"a circuit of {program.wires} wires and {len(own)} rotations by the record is too large to be written "
            "out; use the model with qfed (qfed predict), or export its twin"
        )
    states = [torch.eye(size, dtype=torch.float64)[:1]]
    touched = [True]
    for r in range(len(program.rotations)):
        if r in own:
            states.append(torch.eye(size, dtype=torch.float64))
            touched.append(False)
        else:
            cosine, sine = torch.cos(angles[r] / 2), torch.sin(angles[r] / 2)
            states[-1] = cosine * states[-1] + sine * (sign[r] * states[-1][:, index[r]])
            touched[-1] = True
    return states[0], [s if t else s.new_zeros(0) for s, t in zip(states[1:], touched[1:], strict=True)]


def _couplings(program: Program, rows: Any) -> tuple[Tensor, Tensor]:
    """Q ^ X (R, 2N) and e (-1)^(Z . (Q ^ X)) (R, 2N) of rows X, Z, e."""
    masks = torch.from_numpy(np.ascontiguousarray(rows[:, :3]))
    index = torch.arange(2 * program.size) ^ masks[:, :1]
    bits, shift = index & masks[:, 1:2], 1
    while shift <= program.wires:
        bits, shift = bits ^ (bits >> shift), 2 * shift
    return index, (masks[:, 2:3] * (1 - 2 * (bits & 1))).double()


def _one_hot(places: Any, width: int) -> Tensor:
    return torch.nn.functional.one_hot(torch.from_numpy(np.array(places, np.int64)), width).float()


def _polynomial(compiled: Compiled, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """c (R,), A (D, R), Q (D^2, R) of the angles at these weights; CircuitError when they are of another kind."""
    maps, size = compiled.angles, compiled.angles.from_inputs.shape[1]
    if maps.graph is None:
        constant = maps.from_weights @ weights + maps.constant
        return constant, maps.from_inputs.T.contiguous(), torch.zeros(size * size, len(constant), dtype=torch.float64)
    graph, parts = maps.graph, maps.split(weights)

    def angles(x: Tensor) -> Tensor:
        return graph(x, *parts)

    origin = torch.zeros(size, dtype=torch.float64)
    constant = angles(origin)
    linear = torch.func.jacrev(angles)(origin)
    square = torch.func.jacrev(torch.func.jacrev(angles))(origin) / 2
    for scale in (1.0, -0.7):
        x = scale * torch.linspace(0.3, 0.9, size, dtype=torch.float64)
        told = constant + linear @ x + torch.einsum("rij,i,j->r", square, x, x)
        if not torch.allclose(told, angles(x), _TOLERANCE, _TOLERANCE):
            raise CircuitError(
                "the angles of this circuit are neither affine nor quadratic in its inputs, so it cannot be written "
                "out in torch's own operations; use the model with qfed (qfed predict), or export its twin"
            )
    return constant, linear.T.contiguous(), square.permute(1, 2, 0).reshape(size * size, -1).contiguous()
