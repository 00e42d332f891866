"""The circuit as a differentiable torch function of angles.

    out (K, B, M) = circuit(own (K, B, Ro), shared (K, Rs), state (K, B, N) or None)

Every record has its own angles `own`; the K sites have `shared` angles, one set for all records of a site. The
kernel returns gradients per record for both, so a vmap is a larger batch (of records, or of sites where it runs
over the weights). Works under autograd and torch.func (grad, vmap, jacrev); a second derivative is refused.
The final states of a forward sweep are kept for the backward sweep, together with the arguments they belong to;
other arguments (a vmap over cotangents, say) recompute them.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from qfed.errors import CircuitError
from qfed.quantum import execute, torch_path
from qfed.quantum.program import Program
from qfed.quantum.routine import Routine
from qfed.quantum.workers import Spare

TWICE = (
    "QuantumLayer has first derivatives only, and a second derivative (create_graph=True, hessian) was asked for; "
    "differentiate once, or use PennyLane's qml.qnn.TorchLayer for that experiment"
)


class Sweep:
    """One forward sweep: what to run, and the final states it left for the backward sweep."""

    def __init__(self, program: Program, routine: Routine, *, keep: bool) -> None:
        self.program = program
        self.routine = routine
        self.keep = keep
        self._arguments: tuple[Tensor | None, ...] = ()
        self._fingerprint: tuple[Any, ...] | None = None
        self._final: Spare | None = None

    def forward(self, own: Tensor, shared: Tensor, state: Tensor | None) -> Tensor:
        """Raw outputs (K, B, M)."""
        if own.device.type != "cpu":
            return torch_path.forward(self.program, self.routine.plan, own, shared, state)
        out, final = execute.forward(self.routine, _batch(own, shared, state), keep=self.keep)
        if len(final.array):
            self._arguments = (own, shared, state)  # held, so that their memory is not reused
            self._fingerprint, self._final = _fingerprint(own, shared, state), final
        return torch.from_numpy(out).view(*own.shape[:2], out.shape[1])

    def backward(
        self, own: Tensor, shared: Tensor, state: Tensor | None, cotangent: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Per-record gradients: own (K, B, Ro), shared (K, B, Rs), state (K, B, N) (empty without state)."""
        if own.device.type != "cpu":
            return torch_path.backward(self.program, self.routine.plan, own, shared, state, cotangent)
        same = self._fingerprint is not None and self._fingerprint == _fingerprint(own, shared, state)
        found = execute.backward(
            self.routine, _batch(own, shared, state), _rows(cotangent), self._final if same else None
        )
        of_own, of_shared, of_state = (torch.from_numpy(g).view(*own.shape[:2], g.shape[1]) for g in found)
        return of_own, of_shared, own.new_zeros(0) if state is None else of_state


def _batch(own: Tensor, shared: Tensor, state: Tensor | None) -> execute.Batch:
    """Angles of K sites with B records each."""
    weights = shared.detach().contiguous().numpy()
    return execute.Batch(
        _rows(own), weights, execute.even(own.shape[0], own.shape[1]), None if state is None else _rows(state)
    )


def _rows(values: Tensor) -> Any:
    """(K, B, C) -> (K B, C)."""
    return values.detach().contiguous().flatten(0, 1).numpy()


def _fingerprint(*tensors: Tensor | None) -> tuple[Any, ...] | None:
    """The same memory, unchanged since: torch counts changes in place (but not those of inference tensors)."""
    found: list[Any] = []
    for t in tensors:
        if t is not None:
            if t.is_inference():
                return None
            found += (t.data_ptr(), t._version, t.shape, t.stride())
    return tuple(found)


def circuit(sweep: Sweep, own: Tensor, shared: Tensor, state: Tensor | None) -> Tensor:
    """Raw outputs (B, M) of one site: own (B, Ro), shared (Rs,), state (B, N) or None."""
    lifted = None if state is None else state.unsqueeze(0)
    found: Tensor = _forward(own.unsqueeze(0), shared.unsqueeze(0), lifted, sweep)
    return found.squeeze(0)


class _Forward(torch.autograd.Function):
    @staticmethod
    def forward(own: Tensor, shared: Tensor, state: Tensor | None, sweep: Sweep) -> Tensor:
        return sweep.forward(own, shared, state)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        own, shared, state, sweep = inputs
        ctx.save_for_backward(own, shared, state)
        ctx.sweep = sweep

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        own, shared, state = ctx.saved_tensors
        of_own, of_shared, of_state = _backward(own, shared, state, cotangent, ctx.sweep)
        return of_own, of_shared.sum(1), None if state is None else of_state, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise CircuitError("QuantumLayer has reverse-mode derivatives only; use torch.func.jacrev instead of jacfwd")

    @staticmethod
    def vmap(
        info: Any, in_dims: Any, own: Tensor, shared: Tensor, state: Tensor | None, sweep: Sweep
    ) -> tuple[Tensor, int]:
        fold = _Fold(info.batch_size, own, in_dims[0], in_dims[1] is not None)
        inputs = fold.records(own, in_dims[0]), fold.sites(shared, in_dims[1]), fold.records(state, in_dims[2])
        return fold.unfold(_forward(*inputs, sweep)), 0


class _Backward(torch.autograd.Function):
    """A function of its own, so that a vmap over the cotangent or the records works and a second derivative not."""

    @staticmethod
    def forward(
        own: Tensor, shared: Tensor, state: Tensor | None, cotangent: Tensor, sweep: Sweep
    ) -> tuple[Tensor, Tensor, Tensor]:
        return sweep.backward(own, shared, state, cotangent)

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
        info: Any, in_dims: Any, own: Tensor, shared: Tensor, state: Tensor | None, cotangent: Tensor, sweep: Sweep
    ) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[int, int, int | None]]:
        fold = _Fold(info.batch_size, own, in_dims[0], in_dims[1] is not None)
        of_own, of_shared, of_state = _backward(
            fold.records(own, in_dims[0]),
            fold.sites(shared, in_dims[1]),
            fold.records(state, in_dims[2]),
            fold.records(cotangent, in_dims[3]),
            sweep,
        )
        found = fold.unfold(of_own), fold.unfold(of_shared), of_state if state is None else fold.unfold(of_state)
        return found, (0, 0, None if state is None else 0)


@dataclass(frozen=True)
class _Fold:
    """A vmap over V: more records of the same sites, or (where it maps the shared angles) more sites."""

    size: int
    own: Tensor
    own_dim: int | None
    over_sites: bool

    def records(self, value: Tensor | None, dim: int | None) -> Tensor:
        """(K, B, C), mapped at `dim` or not -> (K, V B, C), or (V K, B, C) over sites."""
        if value is None:
            return value  # type: ignore[return-value]
        mapped = front(value, dim, self.size)
        if self.over_sites:
            return mapped.flatten(0, 1)
        return mapped.transpose(0, 1).flatten(1, 2)

    def sites(self, value: Tensor, dim: int | None) -> Tensor:
        """(K, C) -> (K, C), or (V K, C) over sites."""
        return front(value, dim, self.size).flatten(0, 1) if self.over_sites else value

    def unfold(self, value: Tensor) -> Tensor:
        """The inverse of `records`, V in front."""
        shape = list(self.own.shape)
        if self.own_dim is not None:
            del shape[self.own_dim]
        sites, batch, _ = shape
        if self.over_sites:
            return value.reshape(self.size, sites, batch, value.shape[-1])
        return value.reshape(sites, self.size, batch, value.shape[-1]).transpose(0, 1)


def front(value: Tensor, dim: int | None, size: int) -> Tensor:
    """The mapped dimension in front; an unmapped value is repeated."""
    return value.unsqueeze(0).expand(size, *value.shape) if dim is None else value.movedim(dim, 0)


# `apply` asks for the signature of `forward` at every call: have it ready.
for _function in (_Forward, _Backward):
    setattr(_function.forward, "__signature__", inspect.signature(_function.forward))  # noqa: B010 - typed as a method
# torch's stubs leave `apply` untyped
_forward: Any = _Forward.apply
_backward: Any = _Backward.apply
