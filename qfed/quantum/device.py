"""Circuits that run on a PennyLane device: because only one can (noise, shots, hardware), or because one is asked for.

    out[b] = qnode(x[b], w)        dL_b/dw, dL_b/dx by parameter shift, one record at a time

Slow (two executions a gate and record for gradients; reproducible only as far as the device is), but correct
per record, and never silent: the reason goes to the log "qfed.quantum" and into `explain()`. A configured device
(quantum.device) gets the records of a batch in one submission, and those with the same weights as one broadcast circuit
where it is one of PennyLane's own simulators; what it executes is counted (qfed.quantum.devices).
Source  Mitarai et al., Phys. Rev. A 98, 032309 (2018); Schuld et al., Phys. Rev. A 99, 032331 (2019).
Errors  CircuitError where the device or the shift rule refuses the circuit.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qfed.config import QuantumConfig
from qfed.errors import CircuitError
from qfed.quantum.devices import SEEDED
from qfed.quantum.functional import TWICE, front
from qfed.quantum.isolated import isolated
from qfed.quantum.layout import Layout, layout_of

_LOG = logging.getLogger("qfed.quantum")
# Simulators whose exact result the kernel computes as well, when the circuit is unitary and shots are infinite.
_EXACT = ("default.qubit", "default.mixed", "reference.qubit", "lightning.")


def why_not_compiled(qnode: Any, shots: int | None) -> str | None:
    """The reason why a QNode's own settings need its device, or None."""
    if shots is not None or (getattr(qnode, "shots", None) is not None and qnode.shots.total_shots):
        return f"finite shots ({shots if shots is not None else qnode.shots.total_shots})"
    pipeline = getattr(qnode, "compile_pipeline", None)
    if pipeline is not None and len(pipeline) > 0:
        return f"the QNode has transforms: {pipeline}"
    device = getattr(qnode, "device", None)
    if device is not None and not str(device.name).startswith(_EXACT):
        return f"the QNode runs on device {device.name}"
    return None


class DeviceCircuit:
    """The counterpart of `Compiled` that calls a QNode for every record."""

    def __init__(
        self,
        function: Callable[..., Any],
        device: Any,
        input_name: str,
        shapes: Mapping[str, tuple[int, ...]],
        reason: str,
        shots: int | None,
        qnode: Any = None,
        settings: QuantumConfig | None = None,
    ) -> None:
        """`settings`: what the configuration asks for, None for a fallback that a circuit or its QNode needs."""
        import pennylane as qml

        self.reason = reason
        self.shapes = dict(shapes)
        self.input_name = input_name
        node = qml.QNode(function, device, interface="torch", diff_method="parameter-shift")
        if qnode is not None:  # keep the user's transforms and shots, but differentiate per record
            node = qnode.update(interface="torch", diff_method="parameter-shift")
        self._plain = node  # without shots and noise: what records a circuit
        if settings is not None and settings.noise.any:
            from qfed.quantum.noisy import with_noise

            node = with_noise(node, settings.noise)
        self.qnode = node if shots is None else qml.set_shots(node, shots)
        self.name = str(device.name)
        self._settings, self._device, self._shots = settings, device, shots
        self._submits = settings is not None and qnode is None  # a user's transforms are applied by their QNode
        self._layout: Layout | None = None
        self._broadcasts: bool | None = None
        _LOG.log(
            logging.WARNING if settings is None else logging.INFO,
            "the circuit runs on device %s, record by record with parameter-shift gradients, because: %s",
            self.name,
            reason,
        )

    def take_layout(self, layout: Layout) -> None:
        """Use the layout that the compiled circuit has, so that no record is run to find it."""
        self._layout = layout

    def layout(self, features: int) -> Layout:
        """Found by running one record, unless it is known."""
        if self._layout is None:
            weights = torch.full((sum(math.prod(s) for s in self.shapes.values()),), 0.3, dtype=torch.float64)
            row = torch.full((features,), 1 / math.sqrt(max(features, 1)), dtype=torch.float64)
            found = self._call(row, weights)
            many = isinstance(found, (list, tuple))
            parts = list(found) if many else [found]
            if not all(isinstance(part, Tensor) and not part.is_complex() for part in parts):
                raise CircuitError(
                    f"device={self.name} returns something else than real numbers; measure expectations, variances, "
                    "probabilities or purities instead of states and counts"
                )
            self._layout = layout_of(
                [p.numel() for p in parts],
                ("list" if isinstance(found, list) else "tuple") if many else "one",
                probabilities=any(p.dim() > 0 for p in parts),
            )
        return self._layout

    def __call__(self, inputs: Tensor, weights: Tensor) -> Tensor:
        """x (B, D), flat w (P,) -> (B, width)."""
        isolated(self.layout, inputs.shape[-1])
        out: Tensor = _run(inputs, weights.expand(inputs.shape[0], -1), self)
        return out

    def per_sample(self, inputs: Tensor, weights: Tensor) -> tuple[Tensor, Callable[[Tensor], tuple[Tensor, Tensor]]]:
        """x (B, D), flat w (P,) -> (B, width), and dL/dout -> (dL/dx (B, D), dL/dw (B, P)) per record."""
        every = weights.expand(inputs.shape[0], -1)
        out = isolated(self.rows, inputs, every)
        return out, lambda cotangent: isolated(self.pull, inputs, every, cotangent, inputs_too=True)

    def weight_gradients(self, inputs: Tensor, weights: Tensor, cotangent: Tensor) -> Tensor:
        """Per record: x (B, D), w (P,), dL/dout (B, width) -> dL/dw (B, P)."""
        return self.pull(inputs, weights.expand(inputs.shape[0], -1), cotangent, inputs_too=False)[1]

    def rows(self, inputs: Tensor, weights: Tensor) -> Tensor:
        """x (B, D), w (B, P) -> (B, width)."""
        if self._submits and inputs.shape[0]:
            return self._submitted(inputs.detach(), weights.detach()).to(inputs)
        found = [self._flat(self._call(x, w)) for x, w in zip(inputs.double(), weights.double(), strict=True)]
        width = self.layout(inputs.shape[-1]).width
        return torch.stack(found).detach().to(inputs) if found else inputs.new_zeros(0, width)

    def pull(self, inputs: Tensor, weights: Tensor, cotangent: Tensor, *, inputs_too: bool) -> tuple[Tensor, Tensor]:
        """Per-record gradients (B, D) and (B, P)."""
        of_inputs, of_weights = torch.zeros_like(inputs), torch.zeros_like(weights)
        for b in range(inputs.shape[0]):
            x = inputs[b].detach().double().requires_grad_(inputs_too)
            w = weights[b].detach().double().requires_grad_()
            with torch.enable_grad():
                out = self._flat(self._call(x, w))
                wanted = [x, w] if inputs_too else [w]
                if not out.requires_grad:
                    continue
                found = torch.autograd.grad(out, wanted, cotangent[b].to(out), allow_unused=True)
            if found[-1] is not None:
                of_weights[b] = found[-1].to(of_weights)
            if inputs_too and found[0] is not None:
                of_inputs[b] = found[0].to(of_inputs)
        return of_inputs, of_weights

    def _submitted(self, inputs: Tensor, weights: Tensor) -> Tensor:
        """All records in one submission, as few circuits as the device can take them in."""
        x, w = inputs.double().numpy(), weights.double().numpy()
        together = bool((weights == weights[:1]).all()) and self._can_broadcast(x.shape[1])
        batches = [(x, w[0])] if together else list(zip(x, w, strict=True))
        tapes = [self._guarded(self._tape, row, values) for row, values in batches]
        found = self._guarded(self._execute, tapes)
        count = len(x) if together else 1
        rows = [np.concatenate([np.reshape(part, (count, -1)) for part in _parts(r)], axis=1) for r in found]
        return torch.from_numpy(np.concatenate(rows).astype(np.float64))

    def _can_broadcast(self, features: int) -> bool:
        """Whether the device and the circuit take records as one circuit with a batch dimension."""
        if self._broadcasts is None:
            count = features + 1  # a circuit that takes inputs[0] for the first feature has a batch of `features`
            weights = np.zeros(sum(math.prod(s) for s in self.shapes.values()))
            try:
                tape = self._tape(np.zeros((count, features)), weights)
                self._broadcasts = self.name in SEEDED and tape.batch_size == count
            except (ValueError, TypeError, IndexError):
                self._broadcasts = False
        return self._broadcasts

    def _tape(self, x: Any, w: Any) -> Any:
        import pennylane as qml

        tape = qml.workflow.construct_tape(self._plain, level="top")(**self._arguments(x, w))
        return tape if self._shots is None else tape.copy(shots=self._shots)

    def _execute(self, tapes: Sequence[Any]) -> Sequence[Any]:
        import pennylane as qml

        program = qml.CompilePipeline()
        if self._settings is not None and self._settings.noise.any:
            from qfed.quantum.noisy import noise_transform

            program.add_transform(noise_transform, self._settings.noise)
        found: Sequence[Any] = qml.execute(tapes, self._device, diff_method=None, transform_program=program)
        return found

    def _call(self, x: Tensor, w: Tensor) -> Any:
        return self._guarded(self.qnode, **self._arguments(x, w))

    def _arguments(self, x: Any, w: Any) -> dict[str, Any]:
        ends = np.cumsum([0, *(math.prod(s) for s in self.shapes.values())])
        cuts = zip(self.shapes.items(), ends[:-1], ends[1:], strict=True)
        return {self.input_name: x, **{name: w[a:b].reshape(shape) for (name, shape), a, b in cuts}}

    def _guarded(self, work: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        import pennylane as qml

        try:
            return work(*args, **kwargs)
        except (
            ValueError,
            TypeError,
            NotImplementedError,
            qml.exceptions.QuantumFunctionError,
            qml.exceptions.DeviceError,
        ) as error:
            raise CircuitError(
                f"device={self.name} cannot run this circuit: {error}; name another device, or change the circuit"
            ) from error

    @staticmethod
    def _flat(found: Any) -> Tensor:
        return torch.cat([p.reshape(-1).double() for p in _parts(found)])


def _parts(found: Any) -> Sequence[Any]:
    return found if isinstance(found, (list, tuple)) else [found]


class _Run(torch.autograd.Function):
    @staticmethod
    def forward(inputs: Tensor, weights: Tensor, circuit: DeviceCircuit) -> Tensor:
        return isolated(circuit.rows, inputs, weights)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0], inputs[1])
        ctx.circuit = inputs[2]

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        inputs, weights = ctx.saved_tensors
        of_inputs, of_weights = _pull(inputs, weights, cotangent, ctx.circuit, ctx.needs_input_grad[0])
        return of_inputs, of_weights, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, inputs: Tensor, weights: Tensor, circuit: DeviceCircuit) -> tuple[Tensor, int]:
        size = info.batch_size
        out = _run(
            *(front(t, d, size).flatten(0, 1) for t, d in zip((inputs, weights), in_dims[:2], strict=True)), circuit
        )
        return out.unflatten(0, (size, -1)), 0


class _Pull(torch.autograd.Function):
    @staticmethod
    def forward(
        inputs: Tensor, weights: Tensor, cotangent: Tensor, circuit: DeviceCircuit, inputs_too: bool
    ) -> tuple[Tensor, Tensor]:
        return isolated(circuit.pull, inputs, weights, cotangent, inputs_too=inputs_too)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        raise CircuitError(TWICE)

    @staticmethod
    def vmap(
        info: Any,
        in_dims: Any,
        inputs: Tensor,
        weights: Tensor,
        cotangent: Tensor,
        circuit: DeviceCircuit,
        inputs_too: bool,
    ) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        size = info.batch_size
        mapped = zip((inputs, weights, cotangent), in_dims[:3], strict=True)
        folded = [front(t, d, size).flatten(0, 1) for t, d in mapped]
        of_inputs, of_weights = _pull(*folded, circuit, inputs_too)
        return (of_inputs.unflatten(0, (size, -1)), of_weights.unflatten(0, (size, -1))), (0, 0)


_run: Any = _Run.apply
_pull: Any = _Pull.apply
