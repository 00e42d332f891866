"""Rotations of the state: one at a time (single wires), or three in a pass over the state.

    a' = c a + s e b,  b' = c b - s e a       for every pair (a, b = a ^ X)

A coset of the span of three masks has eight amplitudes, which stay in registers for three rotations. The sign
e is a parity of the index: that of the coset's representative, times a constant of the place in the block.
Where Z_i . X_j = 1 if i = j else 0 (CNOTs keep this product, so rotations RY of distinct wires between CNOTs have
it), a representative can be chosen for which all signs are those of the rotations: the "plain" blocks.
Tables are arrays of vectors: cosine (R + 1,), sine (2 R + 2,): +s, -s; the last row is a rotation by nothing.
"""

from __future__ import annotations

from typing import Any

from qfed.quantum.compiler import compiled
from qfed.quantum.lanes import add, fill, fma, load, mul, neg, parity, store


@compiled
def rotate_one(state: Any, at: int, x: int, z: int, negative: int, cosine: Any, sine: Any, row: int) -> None:
    """One wire: the four vectors state[at : at + 4] are (Re 0, Re 1, Im 0, Im 1)."""
    c = load(cosine, row)
    for a in range(4):
        b = a ^ x
        if b > a:
            s = load(sine, 2 * row + (parity(z & b) ^ negative))
            va = load(state, at + a)
            vb = load(state, at + b)
            store(state, at + a, fma(s, vb, mul(c, va)))
            store(state, at + b, fma(neg(s), va, mul(c, vb)))


@compiled
def slope_one(state: Any, adjoint: Any, at: int, x: int, z: int, negative: int) -> Any:
    """dL/dt of a rotation of one wire."""
    slope = fill(state, 0.0)
    for a in range(4):
        b = a ^ x
        if b > a:
            d = fma(load(adjoint, at + a), load(state, at + b), mul(neg(load(adjoint, at + b)), load(state, at + a)))
            slope = add(slope, neg(d) if parity(z & b) ^ negative else d)
    return slope


@compiled
def _turn(a: Any, b: Any, c: Any, s: Any) -> Any:
    return fma(s, b, mul(c, a)), fma(neg(s), a, mul(c, b))


@compiled
def _cross(la: Any, lb: Any, a: Any, b: Any, sign: Any, total: Any) -> Any:
    """total + sign (la b - lb a)."""
    return fma(sign, fma(la, b, mul(neg(lb), a)), total)


@compiled
def _representative(i: int, block: Any) -> int:
    """Index of the coset's member for which Z_j . q is even for all three rotations of a plain block."""
    q = i
    for j in range(3):
        low = (1 << block[9 + j]) - 1
        q = ((q & ~low) << 1) | (q & low)
    a, b, c = parity(block[6] & q), parity(block[7] & q), parity(block[8] & q)
    return q ^ (-a & block[3]) ^ (-b & block[4]) ^ (-c & block[5])


@compiled
def rotate_plain(state: Any, block: Any, cosine: Any, sine: Any, size: int) -> None:
    """S <- R_3 R_2 R_1 S of a plain block."""
    x0, x1, x2 = block[3], block[4], block[5]
    g = block[12]
    c0, c1, c2 = load(cosine, block[0]), load(cosine, block[1]), load(cosine, block[2])
    s0, s1 = load(sine, 2 * block[0] + (g & 1)), load(sine, 2 * block[1] + (g >> 4 & 1))
    s2 = load(sine, 2 * block[2] + (g >> 8 & 1))
    for i in range(size >> 2):
        q = _representative(i, block)
        q1, q2, q4 = q ^ x0, q ^ x1, q ^ x2
        q3, q5, q6 = q1 ^ x1, q1 ^ x2, q2 ^ x2
        q7 = q3 ^ x2
        v0, v1 = _turn(load(state, q), load(state, q1), c0, s0)
        v2, v3 = _turn(load(state, q2), load(state, q3), c0, s0)
        v4, v5 = _turn(load(state, q4), load(state, q5), c0, s0)
        v6, v7 = _turn(load(state, q6), load(state, q7), c0, s0)
        v0, v2 = _turn(v0, v2, c1, s1)
        v1, v3 = _turn(v1, v3, c1, s1)
        v4, v6 = _turn(v4, v6, c1, s1)
        v5, v7 = _turn(v5, v7, c1, s1)
        v0, v4 = _turn(v0, v4, c2, s2)
        v1, v5 = _turn(v1, v5, c2, s2)
        v2, v6 = _turn(v2, v6, c2, s2)
        v3, v7 = _turn(v3, v7, c2, s2)
        store(state, q, v0)
        store(state, q1, v1)
        store(state, q2, v2)
        store(state, q3, v3)
        store(state, q4, v4)
        store(state, q5, v5)
        store(state, q6, v6)
        store(state, q7, v7)


@compiled
def _slope(la: Any, lb: Any, a: Any, b: Any, total: Any) -> Any:
    """total + la b - lb a."""
    return fma(la, b, fma(neg(lb), a, total))


@compiled
def undo_plain(state: Any, adjoint: Any, block: Any, cosine: Any, sine: Any, out: Any, size: int) -> None:
    """S, L <- (R_3 R_2 R_1)^-1 S, L of a plain block; out[row] = dL/dt of the three rows."""
    x0, x1, x2 = block[3], block[4], block[5]
    g = block[12]
    c0, c1, c2 = load(cosine, block[0]), load(cosine, block[1]), load(cosine, block[2])
    s0, s1 = load(sine, 2 * block[0] + 1 - (g & 1)), load(sine, 2 * block[1] + 1 - (g >> 4 & 1))
    s2 = load(sine, 2 * block[2] + 1 - (g >> 8 & 1))
    d0 = d1 = d2 = fill(state, 0.0)
    for i in range(size >> 2):
        q = _representative(i, block)
        q1, q2, q4 = q ^ x0, q ^ x1, q ^ x2
        q3, q5, q6 = q1 ^ x1, q1 ^ x2, q2 ^ x2
        q7 = q3 ^ x2
        v0, v1, v2, v3 = load(state, q), load(state, q1), load(state, q2), load(state, q3)
        v4, v5, v6, v7 = load(state, q4), load(state, q5), load(state, q6), load(state, q7)
        w0, w1, w2, w3 = load(adjoint, q), load(adjoint, q1), load(adjoint, q2), load(adjoint, q3)
        w4, w5, w6, w7 = load(adjoint, q4), load(adjoint, q5), load(adjoint, q6), load(adjoint, q7)
        d2 = _slope(w1, w5, v1, v5, _slope(w0, w4, v0, v4, d2))
        d2 = _slope(w3, w7, v3, v7, _slope(w2, w6, v2, v6, d2))
        v0, v4 = _turn(v0, v4, c2, s2)
        v1, v5 = _turn(v1, v5, c2, s2)
        v2, v6 = _turn(v2, v6, c2, s2)
        v3, v7 = _turn(v3, v7, c2, s2)
        w0, w4 = _turn(w0, w4, c2, s2)
        w1, w5 = _turn(w1, w5, c2, s2)
        w2, w6 = _turn(w2, w6, c2, s2)
        w3, w7 = _turn(w3, w7, c2, s2)
        d1 = _slope(w1, w3, v1, v3, _slope(w0, w2, v0, v2, d1))
        d1 = _slope(w5, w7, v5, v7, _slope(w4, w6, v4, v6, d1))
        v0, v2 = _turn(v0, v2, c1, s1)
        v1, v3 = _turn(v1, v3, c1, s1)
        v4, v6 = _turn(v4, v6, c1, s1)
        v5, v7 = _turn(v5, v7, c1, s1)
        w0, w2 = _turn(w0, w2, c1, s1)
        w1, w3 = _turn(w1, w3, c1, s1)
        w4, w6 = _turn(w4, w6, c1, s1)
        w5, w7 = _turn(w5, w7, c1, s1)
        d0 = _slope(w2, w3, v2, v3, _slope(w0, w1, v0, v1, d0))
        d0 = _slope(w6, w7, v6, v7, _slope(w4, w5, v4, v5, d0))
        v0, v1 = _turn(v0, v1, c0, s0)
        v2, v3 = _turn(v2, v3, c0, s0)
        v4, v5 = _turn(v4, v5, c0, s0)
        v6, v7 = _turn(v6, v7, c0, s0)
        w0, w1 = _turn(w0, w1, c0, s0)
        w2, w3 = _turn(w2, w3, c0, s0)
        w4, w5 = _turn(w4, w5, c0, s0)
        w6, w7 = _turn(w6, w7, c0, s0)
        store(state, q, v0)
        store(state, q1, v1)
        store(state, q2, v2)
        store(state, q3, v3)
        store(state, q4, v4)
        store(state, q5, v5)
        store(state, q6, v6)
        store(state, q7, v7)
        store(adjoint, q, w0)
        store(adjoint, q1, w1)
        store(adjoint, q2, w2)
        store(adjoint, q3, w3)
        store(adjoint, q4, w4)
        store(adjoint, q5, w5)
        store(adjoint, q6, w6)
        store(adjoint, q7, w7)
    store(out, block[0], neg(d0) if g & 1 else d0)
    store(out, block[1], neg(d1) if g >> 4 & 1 else d1)
    store(out, block[2], neg(d2) if g >> 8 & 1 else d2)


@compiled
def rotate_block(state: Any, block: Any, cosine: Any, sine: Any, size: int) -> None:
    """S <- R_3 R_2 R_1 S."""
    r0, r1, r2 = 2 * block[0], 2 * block[1], 2 * block[2]
    x0, x1, x2 = block[3], block[4], block[5]
    z0, z1, z2 = block[6], block[7], block[8]
    m0, m1, m2 = (1 << block[9]) - 1, (1 << block[10]) - 1, (1 << block[11]) - 1
    g = block[12]
    c0, c1, c2 = load(cosine, block[0]), load(cosine, block[1]), load(cosine, block[2])
    for i in range(size >> 2):
        q = ((i & ~m0) << 1) | (i & m0)
        q = ((q & ~m1) << 1) | (q & m1)
        q = ((q & ~m2) << 1) | (q & m2)
        q1, q2, q4 = q ^ x0, q ^ x1, q ^ x2
        q3, q5, q6 = q1 ^ x1, q1 ^ x2, q2 ^ x2
        q7 = q3 ^ x2
        v0, v1, v2, v3 = load(state, q), load(state, q1), load(state, q2), load(state, q3)
        v4, v5, v6, v7 = load(state, q4), load(state, q5), load(state, q6), load(state, q7)
        p = parity(z0 & q)
        v0, v1 = _turn(v0, v1, c0, load(sine, r0 + (p ^ (g & 1))))
        v2, v3 = _turn(v2, v3, c0, load(sine, r0 + (p ^ (g >> 1 & 1))))
        v4, v5 = _turn(v4, v5, c0, load(sine, r0 + (p ^ (g >> 2 & 1))))
        v6, v7 = _turn(v6, v7, c0, load(sine, r0 + (p ^ (g >> 3 & 1))))
        p = parity(z1 & q)
        v0, v2 = _turn(v0, v2, c1, load(sine, r1 + (p ^ (g >> 4 & 1))))
        v1, v3 = _turn(v1, v3, c1, load(sine, r1 + (p ^ (g >> 5 & 1))))
        v4, v6 = _turn(v4, v6, c1, load(sine, r1 + (p ^ (g >> 6 & 1))))
        v5, v7 = _turn(v5, v7, c1, load(sine, r1 + (p ^ (g >> 7 & 1))))
        p = parity(z2 & q)
        v0, v4 = _turn(v0, v4, c2, load(sine, r2 + (p ^ (g >> 8 & 1))))
        v1, v5 = _turn(v1, v5, c2, load(sine, r2 + (p ^ (g >> 9 & 1))))
        v2, v6 = _turn(v2, v6, c2, load(sine, r2 + (p ^ (g >> 10 & 1))))
        v3, v7 = _turn(v3, v7, c2, load(sine, r2 + (p ^ (g >> 11 & 1))))
        store(state, q, v0)
        store(state, q1, v1)
        store(state, q2, v2)
        store(state, q3, v3)
        store(state, q4, v4)
        store(state, q5, v5)
        store(state, q6, v6)
        store(state, q7, v7)


@compiled
def undo_block(state: Any, adjoint: Any, block: Any, cosine: Any, sine: Any, unit: Any, out: Any, size: int) -> None:
    """S, L <- (R_3 R_2 R_1)^-1 S, L; out[row] = dL/dt of the three rows. `unit` is (1, -1)."""
    r0, r1, r2 = 2 * block[0], 2 * block[1], 2 * block[2]
    x0, x1, x2 = block[3], block[4], block[5]
    z0, z1, z2 = block[6], block[7], block[8]
    m0, m1, m2 = (1 << block[9]) - 1, (1 << block[10]) - 1, (1 << block[11]) - 1
    g = block[12]
    c0, c1, c2 = load(cosine, block[0]), load(cosine, block[1]), load(cosine, block[2])
    d0 = d1 = d2 = fill(state, 0.0)
    for i in range(size >> 2):
        q = ((i & ~m0) << 1) | (i & m0)
        q = ((q & ~m1) << 1) | (q & m1)
        q = ((q & ~m2) << 1) | (q & m2)
        q1, q2, q4 = q ^ x0, q ^ x1, q ^ x2
        q3, q5, q6 = q1 ^ x1, q1 ^ x2, q2 ^ x2
        q7 = q3 ^ x2
        v0, v1, v2, v3 = load(state, q), load(state, q1), load(state, q2), load(state, q3)
        v4, v5, v6, v7 = load(state, q4), load(state, q5), load(state, q6), load(state, q7)
        w0, w1, w2, w3 = load(adjoint, q), load(adjoint, q1), load(adjoint, q2), load(adjoint, q3)
        w4, w5, w6, w7 = load(adjoint, q4), load(adjoint, q5), load(adjoint, q6), load(adjoint, q7)
        p = parity(z2 & q)
        e, f, h, k = p ^ (g >> 8 & 1), p ^ (g >> 9 & 1), p ^ (g >> 10 & 1), p ^ (g >> 11 & 1)
        d2 = _cross(w0, w4, v0, v4, load(unit, e), d2)
        d2 = _cross(w1, w5, v1, v5, load(unit, f), d2)
        d2 = _cross(w2, w6, v2, v6, load(unit, h), d2)
        d2 = _cross(w3, w7, v3, v7, load(unit, k), d2)
        s, t, u, v = load(sine, r2 + 1 - e), load(sine, r2 + 1 - f), load(sine, r2 + 1 - h), load(sine, r2 + 1 - k)
        v0, v4 = _turn(v0, v4, c2, s)
        v1, v5 = _turn(v1, v5, c2, t)
        v2, v6 = _turn(v2, v6, c2, u)
        v3, v7 = _turn(v3, v7, c2, v)
        w0, w4 = _turn(w0, w4, c2, s)
        w1, w5 = _turn(w1, w5, c2, t)
        w2, w6 = _turn(w2, w6, c2, u)
        w3, w7 = _turn(w3, w7, c2, v)
        p = parity(z1 & q)
        e, f, h, k = p ^ (g >> 4 & 1), p ^ (g >> 5 & 1), p ^ (g >> 6 & 1), p ^ (g >> 7 & 1)
        d1 = _cross(w0, w2, v0, v2, load(unit, e), d1)
        d1 = _cross(w1, w3, v1, v3, load(unit, f), d1)
        d1 = _cross(w4, w6, v4, v6, load(unit, h), d1)
        d1 = _cross(w5, w7, v5, v7, load(unit, k), d1)
        s, t, u, v = load(sine, r1 + 1 - e), load(sine, r1 + 1 - f), load(sine, r1 + 1 - h), load(sine, r1 + 1 - k)
        v0, v2 = _turn(v0, v2, c1, s)
        v1, v3 = _turn(v1, v3, c1, t)
        v4, v6 = _turn(v4, v6, c1, u)
        v5, v7 = _turn(v5, v7, c1, v)
        w0, w2 = _turn(w0, w2, c1, s)
        w1, w3 = _turn(w1, w3, c1, t)
        w4, w6 = _turn(w4, w6, c1, u)
        w5, w7 = _turn(w5, w7, c1, v)
        p = parity(z0 & q)
        e, f, h, k = p ^ (g & 1), p ^ (g >> 1 & 1), p ^ (g >> 2 & 1), p ^ (g >> 3 & 1)
        d0 = _cross(w0, w1, v0, v1, load(unit, e), d0)
        d0 = _cross(w2, w3, v2, v3, load(unit, f), d0)
        d0 = _cross(w4, w5, v4, v5, load(unit, h), d0)
        d0 = _cross(w6, w7, v6, v7, load(unit, k), d0)
        s, t, u, v = load(sine, r0 + 1 - e), load(sine, r0 + 1 - f), load(sine, r0 + 1 - h), load(sine, r0 + 1 - k)
        v0, v1 = _turn(v0, v1, c0, s)
        v2, v3 = _turn(v2, v3, c0, t)
        v4, v5 = _turn(v4, v5, c0, u)
        v6, v7 = _turn(v6, v7, c0, v)
        w0, w1 = _turn(w0, w1, c0, s)
        w2, w3 = _turn(w2, w3, c0, t)
        w4, w5 = _turn(w4, w5, c0, u)
        w6, w7 = _turn(w6, w7, c0, v)
        store(state, q, v0)
        store(state, q1, v1)
        store(state, q2, v2)
        store(state, q3, v3)
        store(state, q4, v4)
        store(state, q5, v5)
        store(state, q6, v6)
        store(state, q7, v7)
        store(adjoint, q, w0)
        store(adjoint, q1, w1)
        store(adjoint, q2, w2)
        store(adjoint, q3, w3)
        store(adjoint, q4, w4)
        store(adjoint, q5, w5)
        store(adjoint, q6, w6)
        store(adjoint, q7, w7)
    store(out, block[0], d0)
    store(out, block[1], d1)
    store(out, block[2], d2)
