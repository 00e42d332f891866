"""A model as a chain of operations that know their own gradients, run on a stack of sites without autograd.

    values   x (K, B, ...) -> out (K, B, O)          K sites with weights of their own, B records each
    slopes   dL/dout (K, B, O) -> what each parameter gets from each record, in the cheapest form
    sum      s_k = sum_b f_kb grad_kb,   f_kb = min(1, C / (||grad_kb|| + 1e-6))

Per-record gradients are not formed where their norm and weighted sum are cheaper without (Goodfellow,
arXiv:1510.01799: a linear layer's gradient is g a^T, so ||g a^T||^2 = ||g||^2 ||a||^2, and sum_b f_b g_b a_b^T is one
matrix product). Norms that come out not finite send the batch the long way: all gradients are formed, their
coordinates that are not finite set to zero, and then clipped, as Opacus' path does.
Shapes  weights (K, P), flat, trainable parameters in the order of `model.parameters()`
Cost    one forward and backward pass; about 2 us of Python an operation
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Fill:
    """What is a record in a stack of batches of several sizes; the rest is zeros that count for nothing."""

    present: NDArray[np.bool_]
    """(K, B)."""
    offsets: NDArray[np.int64]
    """(K + 1,): where each site's records begin among all that are present."""


class Share(Protocol):
    """What one use of some parameters adds to each record's gradient."""

    parameters: tuple[int, ...]
    """Positions of the parameters among the trainable ones."""

    def squares(self) -> Array:
        """Squared norms (K, B) of the records' gradients."""
        ...

    def weighted(self, factors: Array | None, into: Sequence[Array]) -> None:
        """Write sum_b factors[k, b] gradient[k, b] (plain sum without factors) into an array a parameter, (K, size)."""
        ...

    def samples(self) -> Sequence[Array]:
        """The gradients themselves, one (K, B, size) a parameter."""
        ...


class Operation(Protocol):
    """One step of the chain."""

    def forward(self, inputs: Sequence[Array], weights: Sequence[Array], fill: Fill | None) -> tuple[Array, Any]:
        """The value, and what `backward` needs; `fill` is None where all of (K, B) are records."""
        ...

    def backward(
        self, saved: Any, slope: Array, weights: Sequence[Array], wanted: Sequence[bool]
    ) -> tuple[Sequence[Array | None], Share | None]:
        """Slopes of the inputs that are wanted, and the parameters' share."""
        ...


@dataclass(frozen=True)
class Step:
    """An operation in its place: which values it takes, which parameters, which value it makes."""

    operation: Operation
    inputs: tuple[int, ...]
    parameters: tuple[int, ...]
    """Positions in the chain's `parameters`."""
    wanted: tuple[bool, ...]
    """Inputs that depend on trainable parameters."""
    live: bool
    """Whether its value depends on any."""


@dataclass(frozen=True)
class Parameter:
    """A parameter of the model: where it lies in the flat vector, or None when it is frozen."""

    shape: tuple[int, ...]
    start: int | None
    stop: int = 0
    frozen: Callable[[], Array] | None = None


@dataclass(frozen=True)
class Chain:
    """See the module's docstring; value 0 is the input, step i makes value i + 1, the last is the output."""

    steps: tuple[Step, ...]
    parameters: tuple[Parameter, ...]
    size: int
    """P, trainable numbers."""
    dtype: np.dtype[Any]
    """float32 or float64, of everything."""

    def forward(self, x: Array, flat: Array, fill: Fill | None = None) -> tuple[Array, Tape]:
        """x (K, B, ...), flat weights (K, P) -> (K, B, O) and what the backward pass needs."""
        weights = self._views(flat)
        values, saved, mine = [x], [], []
        for step in self.steps:
            of_step = [weights[p] for p in step.parameters]
            value, kept = step.operation.forward([values[i] for i in step.inputs], of_step, fill)
            values.append(value)
            saved.append(kept)
            mine.append(of_step)
        return values[-1], Tape(saved, mine)

    def backward(self, tape: Tape, slope: Array) -> list[Share]:
        """dL/dout (K, B, O) -> the shares of all uses of parameters."""
        slopes: list[Array | None] = [None] * len(self.steps) + [slope]
        shares = []
        for place in range(len(self.steps) - 1, -1, -1):
            step, of_value = self.steps[place], slopes[place + 1]
            if of_value is None or not step.live:
                continue
            of_inputs, share = step.operation.backward(tape.saved[place], of_value, tape.weights[place], step.wanted)
            if share is not None:
                shares.append(share)
            for i, of_input in zip(step.inputs, of_inputs, strict=True):
                if of_input is not None:
                    before = slopes[i]
                    slopes[i] = of_input if before is None else before + of_input
        return shares

    def total(self, shares: Sequence[Share], fill: Fill | None, clip_norm: float | None, sites: int) -> Array:
        """(K, P): sum of the records' gradients, clipped unless `clip_norm` is None; slopes of what fills up are 0."""
        uses = [p for share in shares for p in share.parameters]
        twice = {p for p in uses if uses.count(p) > 1} if len(set(uses)) < len(uses) else set()
        if clip_norm is None:
            return self._sum(shares, twice, sites)
        single = [share for share in shares if twice.isdisjoint(share.parameters)]
        formed = self._formed([share for share in shares if not twice.isdisjoint(share.parameters)])
        squares: Any = 0.0
        for share in single:
            squares = squares + share.squares()
        for sample in formed.values():
            squares = squares + np.vecdot(sample, sample)
        if not math.isfinite(squares.sum()):
            single, formed = [], {p: _finite(sample) for p, sample in self._formed(shares).items()}
            squares = sum(np.vecdot(sample, sample) for sample in formed.values())
        factors = _factors(np.sqrt(squares), clip_norm)
        if fill is not None:
            factors *= fill.present
        out = np.empty((factors.shape[0], self.size), factors.dtype)
        for share in single:
            share.weighted(factors, self._places(out, share.parameters))
        for p, sample in formed.items():
            np.matmul(factors[:, None], sample, out=self._places(out, [p])[0][:, None])
        return out

    def _sum(self, shares: Sequence[Share], twice: set[int], sites: int) -> Array:
        out = np.zeros((sites, self.size), self.dtype)
        for share in shares:
            places = self._places(out, share.parameters)
            if twice.isdisjoint(share.parameters):
                share.weighted(None, places)
                continue
            parts = [np.empty_like(place) for place in places]
            share.weighted(None, parts)
            for place, part in zip(places, parts, strict=True):
                place += part
        return out

    def _formed(self, shares: Sequence[Share]) -> dict[int, Array]:
        """Per-record gradients of the parameters of these shares, summed over uses."""
        found: dict[int, Array] = {}
        for share in shares:
            for p, sample in zip(share.parameters, share.samples(), strict=True):
                found[p] = found[p] + sample if p in found else sample
        return found

    def _places(self, out: Array, parameters: Sequence[int]) -> list[Array]:
        """Where the parameters lie in (K, P)."""
        return [out[:, p.start : p.stop] for p in (self.parameters[i] for i in parameters)]

    def _views(self, flat: Array) -> list[Array]:
        sites = len(flat)
        return [
            flat[:, p.start : p.stop].reshape(sites, *p.shape) if p.frozen is None else p.frozen()[None]
            for p in self.parameters
        ]


@dataclass(frozen=True)
class Tape:
    """What a forward pass leaves for the backward pass."""

    saved: list[Any]
    weights: list[list[Array]]


def _factors(norms: Array, clip_norm: float) -> Array:
    norms += 1e-6
    factors = np.divide(clip_norm, norms, out=norms)
    return np.minimum(factors, 1.0, out=factors)


def _finite(sample: Array) -> Array:
    return np.nan_to_num(sample, nan=0.0, posinf=0.0, neginf=0.0)
