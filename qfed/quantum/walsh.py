"""Walsh-Hadamard transforms, and what they make cheap: folded diagonals and measured Z words.

    f_z = sum_p (-1)^(z . p) v_p        for all z in W 2^W additions

Source  Fino & Algazi, IEEE Trans. Computers C-25, 1142 (1976).
"""

from __future__ import annotations

from typing import Any

from qfed.quantum.compiler import part
from qfed.quantum.lanes import add, fill, fma, load, mul, neg, store


@part
def transform(values: Any, size: int) -> None:
    """In place on an array of vectors; two bits a pass."""
    half = 1
    while 4 * half <= size:
        for start in range(0, size, 4 * half):
            for p in range(start, start + half):
                a, b = load(values, p), load(values, p + half)
                c, d = load(values, p + 2 * half), load(values, p + 3 * half)
                s, t, u, v = add(a, b), add(a, neg(b)), add(c, d), add(c, neg(d))
                store(values, p, add(s, u))
                store(values, p + half, add(t, v))
                store(values, p + 2 * half, add(s, neg(u)))
                store(values, p + 3 * half, add(t, neg(v)))
        half *= 4
    if half < size:  # an odd number of bits: the last one alone
        for p in range(half):
            a, b = load(values, p), load(values, p + half)
            store(values, p, add(a, b))
            store(values, p + half, add(a, neg(b)))


@part
def transform_numbers(values: Any) -> None:
    """In place on an array of numbers."""
    half = 1
    size = values.shape[0]
    while half < size:
        for start in range(0, size, 2 * half):
            for p in range(start, start + half):
                a, b = values[p], values[p + half]
                values[p] = a + b
                values[p + half] = a - b
        half *= 2


@part
def fold_phases(members: Any, first: int, last: int, angles: Any, phases: Any) -> None:
    """phases (N,) <- Phi_p = -1/2 sum_j sign_j angle_j (-1)^(z_j . p) of a fold; angles are the shared ones."""
    phases[:] = 0.0
    for m in range(first, last):
        phases[members[m, 1]] -= phases.dtype.type(0.5) * members[m, 2] * angles[members[m, 3]]
    transform_numbers(phases)


@part
def apply_fold(state: Any, cosine: Any, sine: Any, size: int) -> None:
    """psi_p <- exp(i Phi_p) psi_p."""
    for p in range(size):
        c, s = fill(state, cosine[p]), fill(state, sine[p])
        re, im = load(state, p), load(state, p + size)
        store(state, p, fma(c, re, mul(neg(s), im)))
        store(state, p + size, fma(s, re, mul(c, im)))


@part
def undo_fold(
    state: Any,
    adjoint: Any,
    cosine: Any,
    sine: Any,
    members: Any,
    first: int,
    last: int,
    work: Any,
    out: Any,
    size: int,
) -> None:
    """Undo apply_fold on S and L; out[row] = dL/dt of the fold's rows."""
    for p in range(size):
        c, s = fill(state, cosine[p]), fill(state, sine[p])
        re, im = load(state, p), load(state, p + size)
        lre, lim = load(adjoint, p), load(adjoint, p + size)
        store(work, p, fma(lre, im, mul(neg(lim), re)))
        store(state, p, fma(c, re, mul(s, im)))
        store(state, p + size, fma(neg(s), re, mul(c, im)))
        store(adjoint, p, fma(c, lre, mul(s, lim)))
        store(adjoint, p + size, fma(neg(s), lre, mul(c, lim)))
    transform(work, size)
    for m in range(first, last):
        value = load(work, members[m, 1])
        store(out, members[m, 0], value if members[m, 2] > 0 else neg(value))
