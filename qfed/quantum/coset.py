"""Code for one coset of a block: eight amplitudes that stay in registers for three rotations, written out by a loop.

    a' = c a + s e b,  b' = c b - s e a       for the pairs (a, b) = (k, k + 2^j) of rotation j

Amplitude k = 0 .. 7 lies at index q ^ (masks X_j of the bits j of k). What is called from kernels: `turn_*` on S, and
`undo_*` on S and L with the slopes of the three rotations; "signed" where bit 4 j + n of a word is the sign of pair n,
"plain" where all pairs of a rotation have one sign e. "Sheared" is a plain block whose angles all lanes share: its
first two rotations are done by half the operations, up to a factor that the third one makes good,

    a' = m (a + t b),  b' = m (b - t a)         m = c, t = s e / c       where |c| >= |s|
    a' = m (b + t a),  b' = -m (a - t b)        m = s e, t = c / (s e)   elsewhere, so that |t| <= 1 always

The second line is the first one with a and b swapped (they are loaded so) and a sign.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from qfed.quantum.lanes import address, intrinsic, llvm


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

    def turn(self, values: list[Any], j: int, cosines: list[Any], sines: list[Any]) -> None:
        """Rotation j of all four pairs, a cosine and a sine each."""
        b = self.builder
        for (low, high), c, s in zip(self.pairs(j), cosines, sines, strict=True):
            v, w = values[low], values[high]
            values[low] = self.fma(s, w, b.fmul(c, v))
            values[high] = self.fma(b.fneg(s), v, b.fmul(c, w))

    def shear(self, values: list[Any], j: int, tangent: Any) -> None:
        """v + t w, w - t v of all four pairs."""
        minus = self.builder.fneg(tangent)
        for low, high in self.pairs(j):
            v, w = values[low], values[high]
            values[low], values[high] = self.fma(tangent, w, v), self.fma(minus, v, w)

    def parts(self, group: Any, count: int) -> list[Any]:
        """The members of a tuple."""
        return [self.builder.extract_value(group, n) for n in range(count)]

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
def turn_plain(typing: Any, state: Any, q: Any, masks: Any, cosines: Any, sines: Any) -> Any:
    """R_3 R_2 R_1 on one coset, the same sines for all pairs."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        coset = _Coset(context, builder, args[1], args[2])
        at = coset.pointers(state, args[0])
        values = coset.load(at)
        for j in range(3):
            coset.turn(values, j, [builder.extract_value(args[3], j)] * 4, [builder.extract_value(args[4], j)] * 4)
        coset.store(values, at)
        return context.get_dummy_value()

    return types.void(state, q, masks, cosines, sines), generate


@intrinsic
def undo_plain(typing: Any, state: Any, adjoint: Any, q: Any, masks: Any, cosines: Any, sines: Any, slopes: Any) -> Any:
    """The inverse on S and L; slopes plus those of the coset."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        coset = _Coset(context, builder, args[2], args[3])
        at, adjoint_at = coset.pointers(state, args[0]), coset.pointers(adjoint, args[1])
        s, adj = coset.load(at), coset.load(adjoint_at)
        found = [builder.extract_value(args[6], j) for j in range(3)]
        for j in (2, 1, 0):
            c, turned = [builder.extract_value(args[4], j)] * 4, [builder.extract_value(args[5], j)] * 4
            found[j] = coset.slope(s, adj, j, found[j], None)
            coset.turn(s, j, c, turned)
            coset.turn(adj, j, c, turned)
        coset.store(s, at)
        coset.store(adj, adjoint_at)
        return context.make_tuple(builder, signature.return_type, found)

    return slopes(state, adjoint, q, masks, cosines, sines, slopes), generate


@intrinsic
def turn_sheared(
    typing: Any, state: Any, source: Any, target: Any, masks: Any, tangents: Any, cosines: Any, sines: Any
) -> Any:
    """R_3 R_2 R_1 on one coset, loaded from `source`: shears by the tangents of R_1 and R_2, then R_3 pair by pair."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        coset = _Coset(context, builder, args[1], args[3])
        values = coset.load(coset.pointers(state, args[0]))
        for j, tangent in enumerate(coset.parts(args[4], 2)):
            coset.shear(values, j, tangent)
        coset.turn(values, 2, coset.parts(args[5], 4), coset.parts(args[6], 4))
        coset.store(values, _Coset(context, builder, args[2], args[3]).pointers(state, args[0]))
        return context.get_dummy_value()

    return types.void(state, source, target, masks, tangents, cosines, sines), generate


@intrinsic
def undo_sheared(
    typing: Any,
    state: Any,
    adjoint: Any,
    source: Any,
    target: Any,
    masks: Any,
    tangents: Any,
    cosines: Any,
    sines: Any,
    slopes: Any,
) -> Any:
    """The inverse on S and L: shears by the tangents of R_3 and R_2, then R_1; slopes plus those of the coset."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        coset = _Coset(context, builder, args[2], args[4])
        s, adj = coset.load(coset.pointers(state, args[0])), coset.load(coset.pointers(adjoint, args[1]))
        found = coset.parts(args[8], 3)
        for j, tangent in zip((2, 1), coset.parts(args[5], 2), strict=True):
            found[j] = coset.slope(s, adj, j, found[j], None)
            coset.shear(s, j, tangent)
            coset.shear(adj, j, tangent)
        found[0] = coset.slope(s, adj, 0, found[0], None)
        last = coset.parts(args[6], 4), coset.parts(args[7], 4)
        coset.turn(s, 0, *last)
        coset.turn(adj, 0, *last)
        there = _Coset(context, builder, args[3], args[4])
        there.store(s, there.pointers(state, args[0]))
        there.store(adj, there.pointers(adjoint, args[1]))
        return context.make_tuple(builder, signature.return_type, found)

    return slopes(state, adjoint, source, target, masks, tangents, cosines, sines, slopes), generate


@intrinsic
def turn_signed(typing: Any, state: Any, q: Any, masks: Any, cosines: Any, sine: Any, rows: Any, signs: Any) -> Any:
    """R_3 R_2 R_1 on one coset; bit 4 j + n of `signs` is the sign of pair n of rotation j."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        coset = _Coset(context, builder, args[1], args[2])
        at = coset.pointers(state, args[0])
        values = coset.load(at)
        for j in range(3):
            row = builder.extract_value(args[5], j)
            cosines = [builder.extract_value(args[3], j)] * 4
            coset.turn(values, j, cosines, coset.chosen(sine, args[4], j, row, args[6], 0))
        coset.store(values, at)
        return context.get_dummy_value()

    return types.void(state, q, masks, cosines, sine, rows, signs), generate


@intrinsic
def undo_signed(
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
            c, row = [builder.extract_value(args[4], j)] * 4, builder.extract_value(args[7], j)
            found[j] = coset.slope(s, adj, j, found[j], coset.chosen(unit, args[6], j, _word(0), args[8], 0))
            turned = coset.chosen(sine, args[5], j, row, args[8], 1)
            coset.turn(s, j, c, turned)
            coset.turn(adj, j, c, turned)
        coset.store(s, at)
        coset.store(adj, adjoint_at)
        return context.make_tuple(builder, signature.return_type, found)

    return slopes(state, adjoint, q, masks, cosines, sine, unit, rows, signs, slopes), generate
