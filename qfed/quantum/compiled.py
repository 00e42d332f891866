"""From a quantum function to something that runs: program, angle map, state map, shape of the result.

    out = layout(columns(circuit(own(x, w), shared(w), state(x, w))))

`compile_circuit` calls the function on random probe values (two or more times), which takes milliseconds and
simulates nothing. The result is for one number of features D.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from qfed.errors import CircuitError
from qfed.quantum import angles as angle_maps
from qfed.quantum import execute
from qfed.quantum.angles import AngleMap
from qfed.quantum.execute import Floats
from qfed.quantum.functional import Sweep
from qfed.quantum.functional import circuit as run
from qfed.quantum.isolated import isolated
from qfed.quantum.layout import Layout, layout_of
from qfed.quantum.plan import Plan, make_plan
from qfed.quantum.program import Ints, Program, compile_recording
from qfed.quantum.routine import Routine, affine, direct
from qfed.quantum.trace import Circuit, Recording

Pull = Callable[[Tensor], tuple[Tensor, Tensor]]
SitesPull = Callable[[Floats], tuple[Floats, Floats]]


@dataclass(frozen=True)
class Compiled:
    """A circuit for records of D features."""

    program: Program
    plan: Plan
    angles: AngleMap
    state: AngleMap | None

    def layout(self, features: int) -> Layout:
        """How the measurements make up the layer's result."""
        return self._layout

    @cached_property
    def _has_variance(self) -> bool:
        return any(c.square is not None for c in self.program.columns)

    @cached_property
    def _layout(self) -> Layout:
        columns = self.program.columns
        return layout_of(
            [1 if c.square is not None else c.stop - c.start for c in columns],
            self.program.returns,
            probabilities=self.program.outcomes.shape[0] > 0,
        )

    def __call__(self, inputs: Tensor, weights: Tensor) -> Tensor:
        """x (B, D), flat w (P,) -> (B, width)."""
        state = None if self.state is None else self.state.own(inputs, weights)
        sweep = Sweep(self.program, self.routine, keep=torch.is_grad_enabled())
        return self.columns(run(sweep, self.angles.own(inputs, weights), self.angles.shared(weights), state))

    def columns(self, raw: Tensor) -> Tensor:
        """Raw outputs (B, M) -> measurements (B, width): <O^2> - <O>^2 for variances."""
        if not self._has_variance:
            return raw
        parts = [
            raw[:, c.start : c.stop]
            if c.square is None
            else raw[:, c.square : c.square + 1] - raw[:, c.start : c.start + 1].square()
            for c in self.program.columns
        ]
        return torch.cat(parts, dim=1)

    @cached_property
    def routine(self) -> Routine:
        """The kernel's, with angles as its arguments."""
        return direct(self.plan)

    @cached_property
    def affine(self) -> Routine | None:
        """The kernel's, with inputs and weights as its arguments; None where the angles need torch."""
        maps = self.angles
        if maps.graph is not None or self.state is not None:
            return None
        return affine(self.plan, maps.from_inputs.numpy(), maps.from_weights.numpy(), maps.constant.numpy())

    def per_sample(self, inputs: Tensor, weights: Tensor) -> tuple[Tensor, Pull]:
        """x (B, D), flat w (P,) -> (B, width), and the function dL/dout -> (dL/dx (B, D), dL/dw (B, P)) per record.

        Outside of autograd: nothing is recorded and nothing may require gradients.
        """
        if self.affine is not None and inputs.is_cpu:
            # the caller may change its tensors before the pull
            x, w = inputs.numpy().copy(), weights.numpy()[None].copy()
            rows, sites_pull = self.sites(x, w, execute.even(1, x.shape[0]))

            def affine_pull(cotangent: Tensor) -> tuple[Tensor, Tensor]:
                of_inputs, of_weights = sites_pull(cotangent.numpy())
                return torch.from_numpy(of_inputs), torch.from_numpy(of_weights)

            return torch.from_numpy(rows), affine_pull
        own, shared = self.angles.own(inputs, weights), self.angles.shared(weights)
        state = None if self.state is None else self.state.own(inputs, weights)[None]
        if own is inputs:
            own = own.clone()
        sweep = Sweep(self.program, self.routine, keep=True)
        raw = sweep.forward(own[None], shared[None], state)[0]

        def pull(cotangent: Tensor) -> tuple[Tensor, Tensor]:
            found = sweep.backward(own[None], shared[None], state, self._raw_cotangent(raw, cotangent)[None])
            of_own, of_shared, of_state = found[0][0], found[1][0], found[2]
            of_inputs = self.angles.input_gradients(inputs, weights, of_own)
            of_weights = self.angles.weight_gradients(inputs, weights, of_own, of_shared)
            if self.state is not None:
                none = of_state.new_zeros(len(inputs), 0)
                of_inputs = of_inputs + self.state.input_gradients(inputs, weights, of_state[0])
                of_weights = of_weights + self.state.weight_gradients(inputs, weights, of_state[0], none)
            return of_inputs, of_weights

        return self.columns(raw), pull

    def sites(self, inputs: Floats, weights: Floats, offsets: Ints) -> tuple[Floats, SitesPull]:
        """`per_sample` for K sites in one call, in NumPy: x (B, D), w (K, P) -> (B, width), dL/dout -> dL/dx, dL/dw.

        Records offsets[k] .. offsets[k + 1] are site k's, any number of them. The arrays are read again by the pull:
        do not change them before. Raises CircuitError where `affine` is None.
        """
        routine = self.affine
        if routine is None:
            raise CircuitError("the angles of this circuit are not affine in inputs and weights; use per_sample")
        batch = execute.Batch(np.ascontiguousarray(inputs), np.ascontiguousarray(weights, inputs.dtype), offsets)
        raw, final = execute.forward(routine, batch, keep=True)

        def pull(cotangent: Floats) -> tuple[Floats, Floats]:
            if self._has_variance:
                cotangent = self._raw_cotangent(torch.from_numpy(raw), torch.from_numpy(cotangent)).numpy()
            of_inputs, of_weights, _ = execute.backward(routine, batch, np.ascontiguousarray(cotangent), final)
            return of_inputs, of_weights

        return self.columns(torch.from_numpy(raw)).numpy() if self._has_variance else raw, pull

    def _raw_cotangent(self, raw: Tensor, cotangent: Tensor) -> Tensor:
        if not self._has_variance:
            return cotangent
        with torch.enable_grad():
            leaf = raw.detach().requires_grad_()
            return torch.autograd.grad(self.columns(leaf), leaf, cotangent)[0]

    def weight_gradients(self, inputs: Tensor, weights: Tensor, cotangent: Tensor) -> Tensor:
        """Per record: x (B, D), w (P,), dL/dout (B, width) -> dL/dw (B, P)."""
        return self.per_sample(inputs.detach(), weights.detach())[1](cotangent.detach())[1]


def compile_circuit(circuit: Circuit, features: int, shapes: Mapping[str, tuple[int, ...]]) -> Compiled:
    """Compile for records of `features` numbers and weights of the given shapes."""
    return isolated(_compile, circuit, features, shapes)


def _compile(circuit: Circuit, features: int, shapes: Mapping[str, tuple[int, ...]]) -> Compiled:
    generator = torch.Generator().manual_seed(0x51F3D)
    # inside (-1, 1), where arccos and arcsin are defined, and of both signs
    probes = [s * (0.1 + 0.8 * torch.rand(features, generator=generator, dtype=torch.float64)) for s in (1, -1)]
    weights = {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}
    normalised = False
    try:
        recording = circuit.record(*_differentiable(probes[0], weights))
    except CircuitError:
        # amplitudes that the user normalises are checked by PennyLane: try again with records of norm 1
        normalised = True
        probes = [_unit(x) for x in probes]
        recording = circuit.record(*_differentiable(probes[0], weights))
    return _from_recording(circuit, recording, probes, shapes, generator, normalised=normalised)


def _from_recording(
    circuit: Circuit,
    first: Recording,
    probes: list[Tensor],
    shapes: Mapping[str, tuple[int, ...]],
    generator: torch.Generator,
    *,
    normalised: bool,
) -> Compiled:
    program, sources = compile_recording(first)

    def same(recording: Recording) -> Recording:
        if [t.pauli for t in recording.turns] != [t.pauli for t in first.turns]:
            raise CircuitError(
                "the circuit has other gates for other values of inputs or weights, which cannot be compiled; choose "
                "gates by fixed settings, not by values"
            )
        return recording

    spread = torch.linspace(2.0, 4.0, probes[0].shape[0], dtype=torch.float64)
    for sign in (1.0, -1.0):  # gates that hang on a sign or a threshold show here
        x = sign * spread
        same(circuit.record(*_differentiable(_unit(x) if normalised else x, _weights(shapes, sign))))

    def angles(x: Tensor, w: Mapping[str, Tensor]) -> list[Tensor]:
        turns = same(circuit.record(*_differentiable(x, w))).turns
        return [torch.as_tensor(turns[s].angle, dtype=torch.float64) for s in sources]

    def state(x: Tensor, w: Mapping[str, Tensor]) -> list[Tensor]:
        return [torch.as_tensor(circuit.record(*_differentiable(x, w)).state, dtype=torch.float64)]

    maps = [angle_maps.find(angles, probes, shapes, generator, "angles")]
    if program.has_state:
        maps.append(angle_maps.find(state, probes, shapes, generator, "amplitudes"))
    plan = make_plan(program, maps[0].shared_rows.tolist())
    return Compiled(program, plan, maps[0], replace(maps[1], all_own=True) if program.has_state else None)


def _differentiable(x: Tensor, w: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Copies that require gradients: that is how a recording tells what depends on them from constants."""
    found = [v if v.requires_grad else v.clone().requires_grad_() for v in (x, *w.values())]
    return found[0], dict(zip(w, found[1:], strict=True))


def _weights(shapes: Mapping[str, tuple[int, ...]], sign: float) -> dict[str, Tensor]:
    return {name: torch.full(shape, 3.0 * sign, dtype=torch.float64) for name, shape in shapes.items()}


def _unit(x: Tensor) -> Tensor:
    return x / torch.linalg.vector_norm(x) if x.numel() else x
