"""K sites' circuits in one call of the kernel, outside of autograd and in NumPy alone.

    out (K, B, width) = circuit(x (K, B, D), w (K, P)),      dL/dout -> dL/dx (K, B, D), dL/dw (K, B, P) per record

Every site has weights of its own and B records; sites with fewer fill up and give those records a cotangent of zero.
Where angles are affine in inputs and weights and nothing is prepared, all sites are one batch of the kernel; else they
run one after the other through `Compiled.per_sample`, with equal results.
Cost  as the kernel's, and about 20 us of Python whatever K is
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from qfed.quantum import execute
from qfed.quantum.compiled import Compiled

Array = NDArray[Any]
StackedPull = Callable[[Array], tuple[Array, Array]]


def per_sample(circuit: Compiled, inputs: Array, weights: Array) -> tuple[Array, StackedPull]:
    """x (K, B, D), w (K, P) -> measurements (K, B, width), and the function that pulls their slopes back."""
    if circuit.angles.graph is not None or circuit.state is not None or circuit.has_variance:
        return _one_by_one(circuit, inputs, weights)
    a_x, a_w, c, shared_w, shared_c = circuit.angles.arrays(torch.from_numpy(inputs[:0]).dtype)
    own = np.ascontiguousarray(inputs) if a_x is None else inputs @ a_x
    if a_w is not None:
        own = own + (weights @ a_w.T + c)[:, None]
    shared = weights @ shared_w.T
    shared += shared_c
    out, final = execute.forward(circuit.plan, own, shared, None, keep=True)

    def pull(cotangent: Array) -> tuple[Array, Array]:
        found = execute.backward(circuit.plan, own, shared, None, np.ascontiguousarray(cotangent), final)
        of_weights = found.shared @ shared_w
        if a_w is not None:
            of_weights += found.own @ a_w
        return found.own if a_x is None else found.own @ a_x.T, of_weights

    return out, pull


def _one_by_one(circuit: Compiled, inputs: Array, weights: Array) -> tuple[Array, StackedPull]:
    x, w = torch.from_numpy(np.ascontiguousarray(inputs)), torch.from_numpy(np.ascontiguousarray(weights))
    found = [circuit.per_sample(x[k], w[k]) for k in range(len(x))]

    def pull(cotangent: Array) -> tuple[Array, Array]:
        slopes = torch.from_numpy(np.ascontiguousarray(cotangent))
        of_inputs, of_weights = zip(*(f[1](slopes[k]) for k, f in enumerate(found)), strict=True)
        return torch.stack(of_inputs).numpy(), torch.stack(of_weights).numpy()

    return torch.stack([f[0] for f in found]).numpy(), pull
