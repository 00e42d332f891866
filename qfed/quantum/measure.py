"""Measurements of a state, and the adjoint state they start the backward sweep with.

    out[m] = sum_terms c (S, P S)          L = sum_m cot[m] sum_terms c P S

Diagonal words (Z, ZZ, ...) all come from one Walsh-Hadamard transform of |psi_p|^2, and their part of L from the
transform of their weights; other words take a pass each; probabilities a pass a measurement.
"""

from __future__ import annotations

from typing import Any

from qfed.quantum.compiler import part
from qfed.quantum.lanes import add, fill, fma, load, mul, neg, parity, store
from qfed.quantum.walsh import transform


@part
def measure(
    state: Any,
    diagonal: Any,
    terms: Any,
    coefficients: Any,
    outcomes: Any,
    work: Any,
    out: Any,
    size: int,
) -> None:
    """out (M,) <- raw outputs; `work` holds N vectors; `coefficients` are the diagonal words', then the others'."""
    zero = fill(state, 0.0)
    for m in range(out.shape[0] // (64 // state.itemsize)):
        store(out, m, zero)
    if diagonal.shape[0] > 0:
        for p in range(size):
            re, im = load(state, p), load(state, p + size)
            store(work, p, fma(re, re, mul(im, im)))
        transform(work, size)
        for t in range(diagonal.shape[0]):
            c = fill(state, coefficients[t] * diagonal[t, 1])
            m = diagonal[t, 2]
            store(out, m, fma(c, load(work, diagonal[t, 0]), load(out, m)))
    for t in range(terms.shape[0]):
        x, z, m = terms[t, 0], terms[t, 1], terms[t, 3]
        plus = minus = zero
        for q in range(2 * size):
            v = load(state, q)
            if parity(z & (q ^ x)):
                minus = fma(v, load(state, q ^ x), minus)
            else:
                plus = fma(v, load(state, q ^ x), plus)
        c = fill(state, coefficients[diagonal.shape[0] + t] * terms[t, 2])
        store(out, m, fma(c, add(plus, neg(minus)), load(out, m)))
    for k in range(outcomes.shape[0]):
        for p in range(size):
            re, im = load(state, p), load(state, p + size)
            store(out, outcomes[k, p], fma(re, re, fma(im, im, load(out, outcomes[k, p]))))


@part
def pull(
    state: Any,
    adjoint: Any,
    diagonal: Any,
    terms: Any,
    coefficients: Any,
    outcomes: Any,
    cotangent: Any,
    work: Any,
    size: int,
) -> None:
    """adjoint <- L."""
    zero = fill(state, 0.0)
    if diagonal.shape[0] > 0:
        for p in range(size):
            store(work, p, zero)
        for t in range(diagonal.shape[0]):
            c = fill(state, coefficients[t] * diagonal[t, 1])
            z = diagonal[t, 0]
            store(work, z, fma(c, load(cotangent, diagonal[t, 2]), load(work, z)))
        transform(work, size)
        for p in range(size):
            f = load(work, p)
            store(adjoint, p, mul(f, load(state, p)))
            store(adjoint, p + size, mul(f, load(state, p + size)))
    else:
        for q in range(2 * size):
            store(adjoint, q, zero)
    for t in range(terms.shape[0]):
        x, z = terms[t, 0], terms[t, 1]
        c = mul(fill(state, coefficients[diagonal.shape[0] + t] * terms[t, 2]), load(cotangent, terms[t, 3]))
        d = neg(c)
        for q in range(2 * size):
            f = d if parity(z & (q ^ x)) else c
            store(adjoint, q, fma(f, load(state, q ^ x), load(adjoint, q)))
    for k in range(outcomes.shape[0]):
        for p in range(size):
            c = load(cotangent, outcomes[k, p])
            store(adjoint, p, fma(c, load(state, p), load(adjoint, p)))
            store(adjoint, p + size, fma(c, load(state, p + size), load(adjoint, p + size)))
