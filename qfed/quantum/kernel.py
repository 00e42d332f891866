"""The compiled kernel: forward and adjoint sweep of any program, a group of records (one a lane) at a time.

    forward   S <- R_1 ... R_r S_0,   out[m] = sum_terms c (S, P S)
    adjoint   L = sum_m cot[m] P_m S;   for r = R..1:  dL/dt_r = sum_pairs e (L_a S_b - L_b S_a),
              then S <- R_r^-1 S, L <- R_r^-1 L;   dL/dS_0 = 2 L

(Jones & Gacon, arXiv:2009.02823, adjoint differentiation; here in the real form of program.py.)
Two states a group, whatever the depth. Arrays of vectors: state (2N,), cosine (R,), sine (2R,): +s, -s.
A NaN in one record's angles stays in that record's lane. Errors none: shapes are checked by execute.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit

from qfed.quantum.cache import keep_on_disk
from qfed.quantum.lanes import add, fill, fma, load, mul, neg, parity, store


def _compiled(function: Callable[..., Any]) -> Any:
    return njit(nogil=True, error_model="numpy")(function)


@_compiled
def _start(state: Any, initial: Any, has_initial: bool, size: int) -> None:
    zero = fill(state, 0.0)
    if has_initial:
        for p in range(size):
            store(state, p, load(initial, p))
            store(state, p + size, zero)
    else:
        for q in range(2 * size):
            store(state, q, zero)
        store(state, 0, fill(state, 1.0))


@_compiled
def _rotate(state: Any, x: int, z: int, negative: int, pivot: int, c: Any, sine: Any, r: int, size: int) -> None:
    """S <- R S, or its inverse with negative flipped."""
    low = (1 << pivot) - 1
    for i in range(size):
        a = ((i & ~low) << 1) | (i & low)
        b = a ^ x
        s = load(sine, 2 * r + (parity(z & b) ^ negative))
        va = load(state, a)
        vb = load(state, b)
        store(state, a, fma(s, vb, mul(c, va)))
        store(state, b, fma(neg(s), va, mul(c, vb)))


@_compiled
def _undo(
    state: Any, adjoint: Any, x: int, z: int, negative: int, pivot: int, c: Any, sine: Any, r: int, size: int
) -> Any:
    """S, L <- R^-1 S, R^-1 L; returns dL/dt."""
    low = (1 << pivot) - 1
    plus = fill(state, 0.0)
    minus = fill(state, 0.0)
    for i in range(size):
        a = ((i & ~low) << 1) | (i & low)
        b = a ^ x
        odd = parity(z & b) ^ negative
        s = load(sine, 2 * r + (odd ^ 1))
        sa = load(state, a)
        sb = load(state, b)
        la = load(adjoint, a)
        lb = load(adjoint, b)
        if odd:
            minus = fma(la, sb, fma(neg(lb), sa, minus))
        else:
            plus = fma(la, sb, fma(neg(lb), sa, plus))
        store(state, a, fma(s, sb, mul(c, sa)))
        store(state, b, fma(neg(s), sa, mul(c, sb)))
        store(adjoint, a, fma(s, lb, mul(c, la)))
        store(adjoint, b, fma(neg(s), la, mul(c, lb)))
    return add(plus, neg(minus))


@_compiled
def _evolve(state: Any, rotations: Any, cosine: Any, sine: Any, size: int) -> None:
    for r in range(rotations.shape[0]):
        negative = 1 if rotations[r, 2] < 0 else 0
        _rotate(state, rotations[r, 0], rotations[r, 1], negative, rotations[r, 3], load(cosine, r), sine, r, size)


@_compiled
def _measure(state: Any, terms: Any, coefficients: Any, outcomes: Any, out: Any, size: int) -> None:
    for t in range(terms.shape[0]):
        x = terms[t, 0]
        z = terms[t, 1]
        plus = fill(state, 0.0)
        minus = fill(state, 0.0)
        for q in range(2 * size):
            v = load(state, q)
            if parity(z & (q ^ x)):
                minus = fma(v, load(state, q ^ x), minus)
            else:
                plus = fma(v, load(state, q ^ x), plus)
        value = mul(fill(state, coefficients[t] * terms[t, 2]), add(plus, neg(minus)))
        store(out, terms[t, 3], add(load(out, terms[t, 3]), value))
    for k in range(outcomes.shape[0]):
        for p in range(size):
            re = load(state, p)
            im = load(state, p + size)
            store(out, outcomes[k, p], fma(re, re, fma(im, im, load(out, outcomes[k, p]))))


@_compiled
def _pull(state: Any, adjoint: Any, terms: Any, coefficients: Any, outcomes: Any, cotangent: Any, size: int) -> None:
    """L = sum_m cot[m] P_m S."""
    zero = fill(state, 0.0)
    for q in range(2 * size):
        store(adjoint, q, zero)
    for t in range(terms.shape[0]):
        x = terms[t, 0]
        z = terms[t, 1]
        c = mul(fill(state, coefficients[t] * terms[t, 2]), load(cotangent, terms[t, 3]))
        d = neg(c)
        for q in range(2 * size):
            f = d if parity(z & (q ^ x)) else c
            store(adjoint, q, fma(f, load(state, q ^ x), load(adjoint, q)))
    for k in range(outcomes.shape[0]):
        for p in range(size):
            c = load(cotangent, outcomes[k, p])
            store(adjoint, p, fma(c, load(state, p), load(adjoint, p)))
            store(adjoint, p + size, fma(c, load(state, p + size), load(adjoint, p + size)))


@_compiled
def forward(
    first: int,
    last: int,
    rotations: Any,
    terms: Any,
    coefficients: Any,
    outcomes: Any,
    cosine: Any,
    sine: Any,
    initial: Any,
    state: Any,
    out: Any,
    size: int,
) -> None:
    """Groups first..last: out (G, M, lanes) += measurements of the circuit."""
    has_initial = initial.shape[0] > 0
    for g in range(first, last):
        _start(state, initial[g if has_initial else 0 : g + 1].ravel(), has_initial, size)
        _evolve(state, rotations, cosine[g], sine[g], size)
        _measure(state, terms, coefficients, outcomes, out[g], size)


@_compiled
def backward(
    first: int,
    last: int,
    rotations: Any,
    terms: Any,
    coefficients: Any,
    outcomes: Any,
    cosine: Any,
    sine: Any,
    initial: Any,
    state: Any,
    adjoint: Any,
    cotangent: Any,
    gradient: Any,
    initial_gradient: Any,
    size: int,
) -> None:
    """Groups first..last: gradient (G, R, lanes) and initial_gradient (G, N, lanes) per record."""
    has_initial = initial.shape[0] > 0
    for g in range(first, last):
        _start(state, initial[g if has_initial else 0 : g + 1].ravel(), has_initial, size)
        _evolve(state, rotations, cosine[g], sine[g], size)
        _pull(state, adjoint, terms, coefficients, outcomes, cotangent[g], size)
        for i in range(rotations.shape[0]):
            r = rotations.shape[0] - 1 - i
            negative = 1 if rotations[r, 2] < 0 else 0
            x = rotations[r, 0]
            z = rotations[r, 1]
            slope = _undo(state, adjoint, x, z, negative, rotations[r, 3], load(cosine[g], r), sine[g], r, size)
            store(gradient[g], r, slope)
        if has_initial:
            two = fill(state, 2.0)
            for p in range(size):
                store(initial_gradient[g], p, mul(two, load(adjoint, p)))


keep_on_disk(forward, backward)
