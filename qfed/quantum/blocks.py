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

from qfed.quantum.compiler import part
from qfed.quantum.coset import turn_plain, turn_sheared, turn_signed, undo_plain, undo_sheared, undo_signed
from qfed.quantum.lanes import add, fill, fma, load, mul, neg, parity, store


@part
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


@part
def slope_one(state: Any, adjoint: Any, at: int, x: int, z: int, negative: int) -> Any:
    """dL/dt of a rotation of one wire."""
    slope = fill(state, 0.0)
    for a in range(4):
        b = a ^ x
        if b > a:
            d = fma(load(adjoint, at + a), load(state, at + b), mul(neg(load(adjoint, at + b)), load(state, at + a)))
            slope = add(slope, neg(d) if parity(z & b) ^ negative else d)
    return slope


@part
def _representative(i: int, block: Any, plain: int) -> int:
    """Member i of the coset's representatives; in a plain block the one for which Z_j . q is even for all three."""
    q = i
    for j in range(3):
        low = (1 << block[9 + j]) - 1
        q = ((q & ~low) << 1) | (q & low)
    if plain:
        a, b, c = parity(block[6] & q), parity(block[7] & q), parity(block[8] & q)
        q ^= (-a & block[3]) ^ (-b & block[4]) ^ (-c & block[5])
    return q


@part
def _signs(q: int, block: Any) -> Any:
    p, s, t = parity(block[6] & q), parity(block[7] & q), parity(block[8] & q)
    return block[12] ^ (-p & 0x00F) ^ (-s & 0x0F0) ^ (-t & 0xF00)


@part
def _sheared(cosine: Any, sine: Any, first: int, second: int, third: int) -> Any:
    """Of rotations `first` and `second` done by shears and `third` pair by pair (rows of cosine, and of sine with the
    sign): tangents, whether they are swapped, squares of their factors, and cosines and sines of the third's pairs.
    """
    lanes = 64 // cosine.itemsize
    c, s = cosine[(first >> 1) * lanes], sine[first * lanes]
    d, u = cosine[(second >> 1) * lanes], sine[second * lanes]
    swap_c, swap_d = abs(c) < abs(s), abs(d) < abs(u)
    t, m = (c / s, s) if swap_c else (s / c, c)
    v, n = (d / u, u) if swap_d else (u / d, d)
    e, w = cosine[(third >> 1) * lanes] * m * n, sine[third * lanes] * m * n
    i, j = -1 if swap_c else 1, -1 if swap_d else 1
    return (
        (fill(cosine, t), fill(cosine, v)),
        (-1 if swap_c else 0, -1 if swap_d else 0),
        (m * m, n * n),
        (fill(cosine, e), fill(cosine, e * i), fill(cosine, e * j), fill(cosine, e * i * j)),
        (fill(cosine, w), fill(cosine, w * i), fill(cosine, w * j), fill(cosine, w * i * j)),
    )


@part
def rotate_block(state: Any, block: Any, cosine: Any, sine: Any, size: int) -> None:
    """S <- R_3 R_2 R_1 S."""
    masks, g = (block[3], block[4], block[5]), block[12]
    cosines = (load(cosine, block[0]), load(cosine, block[1]), load(cosine, block[2]))
    rows = (2 * block[0], 2 * block[1], 2 * block[2])
    if block[13] == 2:
        tangents, swaps, _, turned, sines = _sheared(
            cosine, sine, rows[0] + (g & 1), rows[1] + (g >> 4 & 1), rows[2] + (g >> 8 & 1)
        )
        other = (swaps[0] & masks[0]) ^ (swaps[1] & masks[1])
        for i in range(size >> 2):
            q = _representative(i, block, 1)
            turn_sheared(state, q ^ other, q, masks, tangents, turned, sines)
    elif block[13]:
        sines = (load(sine, rows[0] + (g & 1)), load(sine, rows[1] + (g >> 4 & 1)), load(sine, rows[2] + (g >> 8 & 1)))
        for i in range(size >> 2):
            turn_plain(state, _representative(i, block, 1), masks, cosines, sines)
    else:
        for i in range(size >> 2):
            q = _representative(i, block, 0)
            turn_signed(state, q, masks, cosines, sine, rows, _signs(q, block))


@part
def undo_block(state: Any, adjoint: Any, block: Any, cosine: Any, sine: Any, unit: Any, out: Any, size: int) -> None:
    """S, L <- (R_3 R_2 R_1)^-1 S, L; out[row] = dL/dt of the three rows. `unit` is (1, -1)."""
    masks, g = (block[3], block[4], block[5]), block[12]
    cosines = (load(cosine, block[0]), load(cosine, block[1]), load(cosine, block[2]))
    rows = (2 * block[0], 2 * block[1], 2 * block[2])
    zero = fill(state, 0.0)
    d = (zero, zero, zero)
    e, f, h = g & 1, g >> 4 & 1, g >> 8 & 1
    if block[13] == 2:
        # the first shear undoes R_3, the second R_2; rows of sine with the other sign
        tangents, swaps, squares, turned, sines = _sheared(
            cosine, sine, rows[2] + 1 - h, rows[1] + 1 - f, rows[0] + 1 - e
        )
        # the pairs of R_1 are numbered by the bits of R_2 and R_3, in this order
        turned, sines = (turned[0], turned[2], turned[1], turned[3]), (sines[0], sines[2], sines[1], sines[3])
        other = (swaps[0] & masks[2]) ^ (swaps[1] & masks[1])
        for i in range(size >> 2):
            q = _representative(i, block, 1)
            d = undo_sheared(state, adjoint, q ^ other, q, masks, tangents, turned, sines, d)
        d = (
            mul(d[0], fill(state, squares[0] * squares[1] * (1 - 2 * e))),
            mul(d[1], fill(state, squares[0] * (1 - 2 * f) * (1 + 2 * swaps[1]))),
            mul(d[2], fill(state, 1.0 * (1 - 2 * h) * (1 + 2 * swaps[0]))),
        )
    elif block[13]:
        sines = (load(sine, rows[0] + 1 - e), load(sine, rows[1] + 1 - f), load(sine, rows[2] + 1 - h))
        for i in range(size >> 2):
            d = undo_plain(state, adjoint, _representative(i, block, 1), masks, cosines, sines, d)
        d = (mul(d[0], load(unit, e)), mul(d[1], load(unit, f)), mul(d[2], load(unit, h)))
    else:
        for i in range(size >> 2):
            q = _representative(i, block, 0)
            d = undo_signed(state, adjoint, q, masks, cosines, sine, unit, rows, _signs(q, block), d)
    store(out, block[0], d[0])
    store(out, block[1], d[1])
    store(out, block[2], d[2])
