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

from llvmlite import ir
from numba import types

from qfed.quantum.compiler import part
from qfed.quantum.lanes import add, address, fill, fma, intrinsic, llvm, load, mul, neg, parity, store


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


# ---- eight amplitudes, in registers: code for the block's three rotations is written out here, not by hand


class _Coset:
    """Writes the code for one coset: amplitudes k = 0 .. 7 at index q ^ (masks X_j of the bits j of k)."""

    def __init__(self, context: Any, builder: Any, q: Any, masks: Any) -> None:
        self.context, self.builder = context, builder
        self.index = [q]
        for j in range(3):
            mask = builder.extract_value(masks, j)
            self.index += [builder.xor(index, mask) for index in self.index]

    def pairs(self, j: int) -> list[tuple[int, int]]:
        """The pairs (k, k + 2^j) that rotation j turns."""
        return [(k, k | 1 << j) for k in range(8) if not k >> j & 1]

    def pointers(self, kind: Any, array: Any) -> list[Any]:
        """Addresses of the eight vectors of an array."""
        return [address(self.context, self.builder, kind, array, index) for index in self.index]

    def load(self, pointers: list[Any]) -> list[Any]:
        return [self.builder.load(pointer, align=4) for pointer in pointers]

    def store(self, values: list[Any], pointers: list[Any]) -> None:
        for value, pointer in zip(values, pointers, strict=True):
            self.builder.store(value, pointer, align=4)

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        return llvm(self.builder, "fmuladd", a, b, c)

    def turn(self, values: list[Any], j: int, cosine: Any, sines: list[Any]) -> None:
        """Rotation j of all four pairs, a sine each."""
        b = self.builder
        for (low, high), s in zip(self.pairs(j), sines, strict=True):
            v, w = values[low], values[high]
            values[low] = self.fma(s, w, b.fmul(cosine, v))
            values[high] = self.fma(b.fneg(s), v, b.fmul(cosine, w))

    def slope(self, state: list[Any], adjoint: list[Any], j: int, total: Any, signs: list[Any] | None) -> Any:
        """total + sum over pairs of sign (L_a S_b - L_b S_a)."""
        b = self.builder
        for n, (low, high) in enumerate(self.pairs(j)):
            minus = b.fneg(adjoint[high])
            if signs is None:
                total = self.fma(adjoint[low], state[high], self.fma(minus, state[low], total))
            else:
                inner = self.fma(adjoint[low], state[high], b.fmul(minus, state[low]))
                total = self.fma(signs[n], inner, total)
        return total

    def chosen(self, kind: Any, array: Any, j: int, first: Any, signs: Any, flipped: int) -> list[Any]:
        """For the four pairs of rotation j: the vector array[first + sign bit], or the other one if `flipped`."""
        b, found = self.builder, []
        for n in range(4):
            bit = b.and_(b.lshr(signs, _word(4 * j + n)), _word(1))
            at = b.add(first, b.xor(bit, _word(flipped)))
            found.append(b.load(address(self.context, b, kind, array, at), align=4))
        return found


def _word(value: int) -> Any:
    return ir.Constant(ir.IntType(64), value)


@intrinsic
def _turn_plain(typing: Any, state: Any, q: Any, masks: Any, cosines: Any, sines: Any) -> Any:
    """R_3 R_2 R_1 on one coset, the same sines for all pairs."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        coset = _Coset(context, builder, args[1], args[2])
        at = coset.pointers(state, args[0])
        values = coset.load(at)
        for j in range(3):
            coset.turn(values, j, builder.extract_value(args[3], j), [builder.extract_value(args[4], j)] * 4)
        coset.store(values, at)
        return context.get_dummy_value()

    return types.void(state, q, masks, cosines, sines), generate


@intrinsic
def _undo_plain(
    typing: Any, state: Any, adjoint: Any, q: Any, masks: Any, cosines: Any, sines: Any, slopes: Any
) -> Any:
    """The inverse on S and L; slopes plus those of the coset."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        coset = _Coset(context, builder, args[2], args[3])
        at, adjoint_at = coset.pointers(state, args[0]), coset.pointers(adjoint, args[1])
        s, adj = coset.load(at), coset.load(adjoint_at)
        found = [builder.extract_value(args[6], j) for j in range(3)]
        for j in (2, 1, 0):
            c, turned = builder.extract_value(args[4], j), [builder.extract_value(args[5], j)] * 4
            found[j] = coset.slope(s, adj, j, found[j], None)
            coset.turn(s, j, c, turned)
            coset.turn(adj, j, c, turned)
        coset.store(s, at)
        coset.store(adj, adjoint_at)
        return context.make_tuple(builder, signature.return_type, found)

    return slopes(state, adjoint, q, masks, cosines, sines, slopes), generate


@intrinsic
def _turn_signed(typing: Any, state: Any, q: Any, masks: Any, cosines: Any, sine: Any, rows: Any, signs: Any) -> Any:
    """R_3 R_2 R_1 on one coset; bit 4 j + n of `signs` is the sign of pair n of rotation j."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        coset = _Coset(context, builder, args[1], args[2])
        at = coset.pointers(state, args[0])
        values = coset.load(at)
        for j in range(3):
            row = builder.extract_value(args[5], j)
            coset.turn(values, j, builder.extract_value(args[3], j), coset.chosen(sine, args[4], j, row, args[6], 0))
        coset.store(values, at)
        return context.get_dummy_value()

    return types.void(state, q, masks, cosines, sine, rows, signs), generate


@intrinsic
def _undo_signed(
    typing: Any,
    state: Any,
    adjoint: Any,
    q: Any,
    masks: Any,
    cosines: Any,
    sine: Any,
    unit: Any,
    rows: Any,
    signs: Any,
    slopes: Any,
) -> Any:
    """The inverse on S and L; slopes plus those of the coset. `unit` is (1, -1)."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        coset = _Coset(context, builder, args[2], args[3])
        at, adjoint_at = coset.pointers(state, args[0]), coset.pointers(adjoint, args[1])
        s, adj = coset.load(at), coset.load(adjoint_at)
        found = [builder.extract_value(args[9], j) for j in range(3)]
        for j in (2, 1, 0):
            c, row = builder.extract_value(args[4], j), builder.extract_value(args[7], j)
            found[j] = coset.slope(s, adj, j, found[j], coset.chosen(unit, args[6], j, _word(0), args[8], 0))
            turned = coset.chosen(sine, args[5], j, row, args[8], 1)
            coset.turn(s, j, c, turned)
            coset.turn(adj, j, c, turned)
        coset.store(s, at)
        coset.store(adj, adjoint_at)
        return context.make_tuple(builder, signature.return_type, found)

    return slopes(state, adjoint, q, masks, cosines, sine, unit, rows, signs, slopes), generate


# ---- a pass over the state


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
def rotate_block(state: Any, block: Any, cosine: Any, sine: Any, size: int) -> None:
    """S <- R_3 R_2 R_1 S."""
    masks, g = (block[3], block[4], block[5]), block[12]
    cosines = (load(cosine, block[0]), load(cosine, block[1]), load(cosine, block[2]))
    rows = (2 * block[0], 2 * block[1], 2 * block[2])
    if block[13]:
        sines = (load(sine, rows[0] + (g & 1)), load(sine, rows[1] + (g >> 4 & 1)), load(sine, rows[2] + (g >> 8 & 1)))
        for i in range(size >> 2):
            _turn_plain(state, _representative(i, block, 1), masks, cosines, sines)
    else:
        for i in range(size >> 2):
            q = _representative(i, block, 0)
            _turn_signed(state, q, masks, cosines, sine, rows, _signs(q, block))


@part
def undo_block(state: Any, adjoint: Any, block: Any, cosine: Any, sine: Any, unit: Any, out: Any, size: int) -> None:
    """S, L <- (R_3 R_2 R_1)^-1 S, L; out[row] = dL/dt of the three rows. `unit` is (1, -1)."""
    masks, g = (block[3], block[4], block[5]), block[12]
    cosines = (load(cosine, block[0]), load(cosine, block[1]), load(cosine, block[2]))
    rows = (2 * block[0], 2 * block[1], 2 * block[2])
    zero = fill(state, 0.0)
    d = (zero, zero, zero)
    if block[13]:
        e, f, h = g & 1, g >> 4 & 1, g >> 8 & 1
        sines = (load(sine, rows[0] + 1 - e), load(sine, rows[1] + 1 - f), load(sine, rows[2] + 1 - h))
        for i in range(size >> 2):
            d = _undo_plain(state, adjoint, _representative(i, block, 1), masks, cosines, sines, d)
        d = (mul(d[0], load(unit, e)), mul(d[1], load(unit, f)), mul(d[2], load(unit, h)))
    else:
        for i in range(size >> 2):
            q = _representative(i, block, 0)
            d = _undo_signed(state, adjoint, q, masks, cosines, sine, unit, rows, _signs(q, block), d)
    store(out, block[0], d[0])
    store(out, block[1], d[1])
    store(out, block[2], d[2])
