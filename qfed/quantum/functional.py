"""The circuit as a differentiable torch function of angles, one set a record.

    out (B, M) = circuit(angles (B, R), state (B, N) or None)

Every record has angles of its own, so nothing here mixes records: a gradient with respect to the angles is
per record by construction, and a vmap is a larger batch. Works under autograd and torch.func (grad, vmap,
jacrev); a second derivative is refused (CircuitError).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from qfed.errors import CircuitError
from qfed.quantum import execute, torch_path
from qfed.quantum.program import Program

TWICE = (
    "QuantumLayer has first derivatives only, and a second derivative (create_graph=True, hessian) was asked for; "
    "differentiate once, or use PennyLane's qml.qnn.TorchLayer for that experiment"
)


def circuit(program: Program, angles: Tensor, state: Tensor | None) -> Tensor:
    """Raw outputs of the program for a batch; see the module's docstring."""
    found: Tensor = _forward(angles, state, program)
    return found


def _array(tensor: Tensor) -> Any:
    return tensor.detach().cpu().contiguous().numpy()


def fold(value: Tensor | None, dim: int | None, size: int) -> Tensor | None:
    """A vmapped argument (V at `dim`) or an unmapped one -> (V * B, ...)."""
    if value is None:
        return None
    moved = value.unsqueeze(0).expand(size, *value.shape) if dim is None else value.movedim(dim, 0)
    return moved.reshape(-1, *moved.shape[2:])


def unfold(value: Tensor, size: int) -> Tensor:
    return value.reshape(size, value.shape[0] // size, *value.shape[1:])


class _Forward(torch.autograd.Function):
    @staticmethod
    def forward(angles: Tensor, state: Tensor | None, program: Program) -> Tensor:
        if angles.device.type != "cpu":
            return torch_path.forward(program, angles, state)
        out = execute.forward(program, _array(angles), None if state is None else _array(state))
        return torch.from_numpy(out).to(angles)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        angles, state, program = inputs
        ctx.save_for_backward(angles, state)
        ctx.program = program

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        angles, state = ctx.saved_tensors
        found = _backward(angles, state, cotangent, ctx.program)
        return found[0], found[1] if state is not None else None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise CircuitError("QuantumLayer has reverse-mode derivatives only; use torch.func.jacrev instead of jacfwd")

    @staticmethod
    def vmap(info: Any, in_dims: Any, angles: Tensor, state: Tensor | None, program: Program) -> tuple[Tensor, int]:
        size = info.batch_size
        folded = fold(angles, in_dims[0], size)
        out = _forward(folded, fold(state, in_dims[1], size), program)
        return unfold(out, size), 0


class _Backward(torch.autograd.Function):
    """A function of its own, so that a vmap over the cotangent or the records works and a second derivative not."""

    @staticmethod
    def forward(angles: Tensor, state: Tensor | None, cotangent: Tensor, program: Program) -> tuple[Tensor, Tensor]:
        if angles.device.type != "cpu":
            gradient, pulled = torch_path.backward(program, angles, state, cotangent)
            return gradient, angles.new_zeros(0) if pulled is None else pulled
        found = execute.backward(program, _array(angles), None if state is None else _array(state), _array(cotangent))
        of_state = angles.new_zeros(0) if found.state is None else torch.from_numpy(found.state).to(angles)
        return torch.from_numpy(found.angles).to(angles), of_state

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        raise CircuitError(TWICE)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise CircuitError(TWICE)

    @staticmethod
    def vmap(
        info: Any, in_dims: Any, angles: Tensor, state: Tensor | None, cotangent: Tensor, program: Program
    ) -> tuple[tuple[Tensor, Tensor], tuple[int, int | None]]:
        size = info.batch_size
        of_angles, of_state = _backward(
            fold(angles, in_dims[0], size),
            fold(state, in_dims[1], size),
            fold(cotangent, in_dims[2], size),
            program,
        )
        if state is None:
            return (unfold(of_angles, size), of_state), (0, None)
        return (unfold(of_angles, size), unfold(of_state, size)), (0, 0)


# torch's stubs leave `apply` untyped
_forward: Any = _Forward.apply
_backward: Any = _Backward.apply
