"""Angles as a function of inputs and weights.

    affine   angles (B, R) = x (B, D) A_x^T + w (P,) A_w^T + c
    traced   angles (B, R) = f(x, w), the torch graph that the quantum function computed them with

Both are found by probing: the Jacobian at two random points equals for affine functions; anything else
(products as in IQPEmbedding, trained input scales, tanh, arccos, normalised amplitudes) is traced once into a
torch graph. A function whose gates depend on the values themselves is refused (CircuitError).
Weights are flattened in the order of `weight_shapes`. Cost: a few calls of the function at compile time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from qfed.errors import CircuitError

_TOLERANCE = 1e-9


@dataclass(frozen=True)
class AngleMap:
    """What the layer evaluates in front of the kernel.

    Rows that depend on the record are its `own`, the others are `shared` by all records.
    `graph` is None for affine maps; beside a graph the two matrices only say what depends on what.
    """

    from_inputs: Tensor  # (R, D)
    from_weights: Tensor  # (R, P)
    constant: Tensor  # (R,)
    graph: Callable[..., Tensor] | None
    shapes: tuple[tuple[int, ...], ...]
    sample: Tensor  # some inputs (D,), for rows of a graph that do not depend on them
    all_own: bool = False  # treat every row as the record's

    @cached_property
    def own_rows(self) -> Tensor:
        return (self.from_inputs.ne(0).any(1) | self.all_own).nonzero().reshape(-1)

    @cached_property
    def shared_rows(self) -> Tensor:
        return (self.from_inputs.eq(0).all(1) & (not self.all_own)).nonzero().reshape(-1)

    def own(self, inputs: Tensor, weights: Tensor) -> Tensor:
        """x (B, D), w (P,) -> (B, Ro)."""
        if self.graph is not None and inputs.shape[0] > 0:
            graph, rows = self.graph, self.own_rows
            parts = self.split(weights.double())
            found: Tensor = torch.func.vmap(lambda x: graph(x, *parts)[rows])(inputs.double())
            return found.to(inputs)
        a_x, a_w, c = self._affine(inputs.dtype, inputs.device)[:3]
        of_inputs: Tensor = inputs if a_x is None else inputs @ a_x
        return of_inputs if a_w is None else of_inputs + (a_w @ weights + c)

    def shared(self, weights: Tensor) -> Tensor:
        """w (P,) -> (Rs,)."""
        if self.graph is not None:
            sample = self.sample.to(weights.device)
            found = self.graph(sample, *self.split(weights.double()))[self.shared_rows]
            return found.to(weights)
        a_w, c = self._affine(weights.dtype, weights.device)[3:]
        angles: Tensor = torch.addmv(c, a_w, weights)
        return angles

    def weight_gradients(self, inputs: Tensor, weights: Tensor, own: Tensor, shared: Tensor) -> Tensor:
        """Per record: x (B, D), w (P,), dL/down (B, Ro), dL/dshared (B, Rs) -> dL/dw (B, P)."""
        if self.graph is None or inputs.shape[0] == 0:
            _, a_w, _, shared_w, _ = self._affine(own.dtype, own.device)
            found: Tensor = shared @ shared_w
            return found if a_w is None else found + own @ a_w
        graph = self.graph
        cotangents = own.new_zeros(own.shape[0], self.from_inputs.shape[0], dtype=torch.float64)
        cotangents[:, self.own_rows] = own.double()
        cotangents[:, self.shared_rows] = shared.double()

        def pulled(x: Tensor, g: Tensor) -> Tensor:
            pull: Any = torch.func.vjp(lambda w: graph(x, *self.split(w)), weights.double())[1]
            gradient: Tensor = pull(g)[0]
            return gradient

        result: Tensor = torch.func.vmap(pulled)(inputs.double(), cotangents)
        return result.to(own)

    def input_gradients(self, inputs: Tensor, weights: Tensor, own: Tensor) -> Tensor:
        """Per record: dL/down (B, Ro) -> dL/dx (B, D)."""
        if self.graph is None or inputs.shape[0] == 0:
            a_x = self._affine(own.dtype, own.device)[0]
            of_inputs: Tensor = own if a_x is None else own @ a_x.T
            return of_inputs
        graph, rows, parts = self.graph, self.own_rows, self.split(weights.double())

        def pulled(x: Tensor, g: Tensor) -> Tensor:
            pull: Any = torch.func.vjp(lambda y: graph(y, *parts)[rows], x)[1]
            gradient: Tensor = pull(g)[0]
            return gradient

        result: Tensor = torch.func.vmap(pulled)(inputs.double(), own.double())
        return result.to(own)

    def split(self, weights: Tensor) -> list[Tensor]:
        """Flat (P,) -> one tensor a weight."""
        parts = torch.split_with_sizes(weights, [math.prod(s) for s in self.shapes])
        return [part.reshape(s) for part, s in zip(parts, self.shapes, strict=True)]

    @cached_property
    def _casts(self) -> dict[Any, tuple[Any, ...]]:
        return {}

    def _affine(self, dtype: torch.dtype, device: torch.device) -> tuple[Any, ...]:
        """A_x^T (D, Ro) or None for the identity, own A_w and c or None for zero, shared A_w and c."""
        found = self._casts.get((dtype, device))
        if found is None:
            o, s = self.own_rows, self.shared_rows
            a_x, a_w, c = self.from_inputs[o], self.from_weights[o], self.constant[o]
            plain = not (bool(a_w.any()) or bool(c.any()))
            identity = a_x.shape[0] == a_x.shape[1] and bool((a_x == torch.eye(a_x.shape[0])).all())
            tensors = [a_x.T, a_w, c, self.from_weights[s], self.constant[s]]
            cast = [t.to(device, dtype).contiguous() for t in tensors]
            found = (None if identity else cast[0], None if plain else cast[1], cast[2], cast[3], cast[4])
            self._casts[dtype, device] = found
        return found


def find(
    function: Callable[[Tensor, Mapping[str, Tensor]], Sequence[Tensor]],
    probes: Sequence[Tensor],
    shapes: Mapping[str, tuple[int, ...]],
    generator: torch.Generator,
    what: str,
) -> AngleMap:
    """The map of `function(x (D,), weights)`, R numbers in all, probed at `probes` (two inputs) and random weights."""
    names, sizes = list(shapes), tuple(shapes.values())

    def pieces(x: Tensor, *parts: Tensor) -> Sequence[Tensor]:
        return function(x, dict(zip(names, parts, strict=True)))

    def flat(x: Tensor, *parts: Tensor) -> Tensor:
        return _joined(pieces(x, *parts))

    def weights() -> list[Tensor]:
        return [torch.randn(s, generator=generator, dtype=torch.float64) for s in sizes]

    jacobians, values, points = [], [], []
    for x in probes:
        arguments = [t.clone().requires_grad_() for t in (x, *weights())]
        value = pieces(*arguments)
        jacobians.append(_jacobian(value, arguments))
        values.append(_joined(value).detach())
        points.append(torch.cat([t.detach().reshape(-1) for t in arguments]))
    rows, dim = values[0].shape[0], probes[0].shape[0]
    constants = [v - j @ p for v, j, p in zip(values, jacobians, points, strict=True)]
    if not any(bool(v.isfinite().all()) for v in values):
        raise CircuitError(
            f"{what} of the circuit are not finite for inputs between -1 and 1; scale the inputs in front of it"
        )
    if _close(jacobians[0], jacobians[1]) and _close(constants[0], constants[1]):
        a_x, a_w = jacobians[0][:, :dim], jacobians[0][:, dim:]
        return AngleMap(a_x.contiguous(), a_w.contiguous(), constants[0], None, sizes, probes[0])
    depends = (torch.stack(jacobians) != 0).any(0)  # NaN counts as dependence
    from torch.fx.experimental.proxy_tensor import make_fx  # slow to import, and few circuits need it

    try:
        graph = make_fx(flat)(probes[0].clone(), *weights())
        graph.graph.eliminate_dead_code()
        graph.recompile()
    except RuntimeError as error:
        raise CircuitError(
            f"{what} of the circuit depend on inputs or weights through Python control flow or a value check, which "
            f"cannot be compiled ({str(error).splitlines()[0][:120]}); compute them with torch operations, and give "
            "AmplitudeEmbedding normalize=True"
        ) from error
    for x in probes:
        parts = weights()
        if not _close(graph(x, *parts), flat(x, *parts).detach()):
            raise CircuitError(f"{what} of the circuit are not a deterministic function of inputs and weights")
    empty = torch.zeros(rows, dtype=torch.float64)
    a_x, a_w = depends[:, :dim].double(), depends[:, dim:].double()
    return AngleMap(a_x, a_w, empty, graph, sizes, probes[0])


def _close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool(torch.allclose(a, b, rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True))


def _joined(pieces: Sequence[Tensor]) -> Tensor:
    return torch.cat([v.reshape(-1) for v in pieces]) if pieces else torch.zeros(0, dtype=torch.float64)


def _jacobian(pieces: Sequence[Tensor], arguments: Sequence[Tensor]) -> Tensor:
    """d pieces (R numbers in all) / d arguments, flattened: (R, sum of sizes)."""
    rows = [_gradients(v, arguments) for v in pieces]
    return torch.cat(rows) if rows else torch.zeros(0, sum(t.numel() for t in arguments), dtype=torch.float64)


def _gradients(value: Tensor, arguments: Sequence[Tensor]) -> Tensor:
    many = value.numel()
    found: Sequence[Tensor | None] = [None] * len(arguments)
    if value.requires_grad and many == 1:
        # without grad_outputs, for which torch imports its symbolic algebra: a quarter of a second
        found = torch.autograd.grad(value.reshape(()), arguments, retain_graph=True, allow_unused=True)
    elif value.requires_grad:
        basis = torch.eye(many, dtype=value.dtype)
        found = torch.autograd.grad(value, arguments, basis, allow_unused=True, is_grads_batched=True)
    blocks = [
        torch.zeros(many, t.numel(), dtype=torch.float64) if g is None else g.reshape(many, -1)
        for g, t in zip(found, arguments, strict=True)
    ]
    return torch.cat(blocks, dim=1)
