"""Activations and arithmetic, element by element, with the derivatives of torch's definitions.

gelu(x) = x Phi(x), or with approximate="tanh"  x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2
(Hendrycks & Gimpel, arXiv:1606.08415).    Shapes  any
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import erf, expit

from qfed.privacy.gradients.chain import Array, Fill, Share

Pair = Callable[[Array], tuple[Array, Array]]
"""x -> value, derivative."""
ZERO, ONE = 0.0, 1.0


@dataclass(frozen=True)
class Activation:
    """A function of one value, element by element."""

    function: Pair

    def forward(self, inputs: Sequence[Array], weights: Sequence[Array], fill: Fill | None) -> tuple[Array, Any]:
        """See Operation."""
        return self.function(inputs[0])

    def backward(
        self, saved: Any, slope: Array, weights: Sequence[Array], wanted: Sequence[bool]
    ) -> tuple[Sequence[Array | None], Share | None]:
        """See Operation."""
        return [slope * saved], None


def tanh(x: Array) -> tuple[Array, Array]:
    """tanh."""
    value = np.tanh(x)
    slope = value * value
    return value, np.subtract(1.0, slope, out=slope)


def relu(x: Array) -> tuple[Array, Array]:
    """max(x, 0); like torch, a NaN stays one."""
    return np.maximum(x, 0.0), (x > 0).astype(x.dtype)


def sigmoid(x: Array) -> tuple[Array, Array]:
    """1 / (1 + exp(-x))."""
    value = expit(x)
    return value, value * (1 - value)


def silu(x: Array) -> tuple[Array, Array]:
    """x sigmoid(x)."""
    gate = expit(x)
    return x * gate, gate * (1 + x * (1 - gate))


def gelu(x: Array) -> tuple[Array, Array]:
    """x Phi(x)."""
    phi = 0.5 * (1 + erf(x * math.sqrt(0.5)))
    return x * phi, phi + x * np.exp(-0.5 * x * x) * (1 / math.sqrt(2 * math.pi))


def gelu_tanh(x: Array) -> tuple[Array, Array]:
    """The approximation of gelu by tanh."""
    root, cubic = math.sqrt(2 / math.pi), 0.044715
    t = np.tanh(root * (x + cubic * x * x * x))
    return 0.5 * x * (1 + t), 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * root * (1 + 3 * cubic * x * x)


def leaky_relu(negative_slope: float) -> Pair:
    """x where x > 0, else negative_slope x."""

    def function(x: Array) -> tuple[Array, Array]:
        slope = np.where(x > 0, x.dtype.type(1), x.dtype.type(negative_slope))
        return x * slope, slope

    return function


def elu(alpha: float) -> Pair:
    """x where x > 0, else alpha (exp(x) - 1)."""

    def function(x: Array) -> tuple[Array, Array]:
        below = alpha * np.expm1(np.minimum(x, 0))
        return np.where(x > 0, x, below), np.where(x > 0, x.dtype.type(1), below + x.dtype.type(alpha))

    return function


@dataclass(frozen=True, eq=False)
class Scale:
    """a x + c with numbers, or arrays of a record's shape, a and c."""

    factor: float | Array
    offset: float | Array = ZERO

    def forward(self, inputs: Sequence[Array], weights: Sequence[Array], fill: Fill | None) -> tuple[Array, Any]:
        """See Operation."""
        value = inputs[0] if self.factor is ONE else inputs[0] * self.factor
        return value if self.offset is ZERO else value + self.offset, None

    def backward(
        self, saved: Any, slope: Array, weights: Sequence[Array], wanted: Sequence[bool]
    ) -> tuple[Sequence[Array | None], Share | None]:
        """See Operation."""
        return [slope if self.factor is ONE else slope * self.factor], None


@dataclass(frozen=True)
class Sum:
    """x + sign y, of one shape."""

    sign: float = 1.0

    def forward(self, inputs: Sequence[Array], weights: Sequence[Array], fill: Fill | None) -> tuple[Array, Any]:
        """See Operation."""
        return inputs[0] + inputs[1] if self.sign > 0 else inputs[0] - inputs[1], None

    def backward(
        self, saved: Any, slope: Array, weights: Sequence[Array], wanted: Sequence[bool]
    ) -> tuple[Sequence[Array | None], Share | None]:
        """See Operation."""
        return [slope if wanted[0] else None, (slope if self.sign > 0 else -slope) if wanted[1] else None], None


@dataclass(frozen=True)
class Product:
    """x y, of one shape."""

    def forward(self, inputs: Sequence[Array], weights: Sequence[Array], fill: Fill | None) -> tuple[Array, Any]:
        """See Operation."""
        return inputs[0] * inputs[1], tuple(inputs)

    def backward(
        self, saved: Any, slope: Array, weights: Sequence[Array], wanted: Sequence[bool]
    ) -> tuple[Sequence[Array | None], Share | None]:
        """See Operation."""
        return [slope * saved[1] if wanted[0] else None, slope * saved[0] if wanted[1] else None], None
