"""SIMD vectors as a Numba type: one record a lane, 64 bytes a vector (16 float32 or 8 float64).

LLVM splits a vector into what the machine has (AVX-512, AVX2, SSE, NEON), so this is portable; arithmetic is
IEEE with contraction of a*b+c only. `load`/`store` see a contiguous array as an array of vectors; no bounds
check.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils, extending
from numba.core.extending import models, register_model

BYTES = 64


def intrinsic(function: Callable[..., Any]) -> Any:
    """Numba's decorator; what it returns is called from kernels with the arguments after the first."""
    return extending.intrinsic(function)


class Vector(types.Type):
    """A vector of one record each."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        self.width = BYTES * 8 // dtype.bitwidth
        super().__init__(f"Vector({dtype}x{self.width})")


@register_model(Vector)
class VectorModel(models.PrimitiveModel):
    """An LLVM vector."""

    def __init__(self, manager: Any, kind: Vector) -> None:
        element = ir.FloatType() if kind.dtype == types.float32 else ir.DoubleType()
        super().__init__(manager, kind, ir.VectorType(element, kind.width))  # type: ignore[no-untyped-call]


def address(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    """Where vector `index` of an array lies: a value of the code that is being written."""
    data = context.make_array(array_type)(context, builder, array).data
    pointer = context.get_value_type(Vector(array_type.dtype)).as_pointer()
    return builder.gep(builder.bitcast(data, pointer), [index])


def llvm(builder: Any, name: str, *arguments: Any) -> Any:
    """A call of LLVM's intrinsic of this name on vectors, which gives a vector of the same type."""
    kind = arguments[0].type
    bits = 32 if isinstance(kind.element, ir.FloatType) else 64
    function = _declared(builder, f"llvm.{name}.v{kind.count}f{bits}", kind, [kind] * len(arguments))
    return builder.call(function, arguments)


def _declared(builder: Any, name: str, result: Any, arguments: list[Any]) -> Any:
    declare: Any = cgutils.get_or_insert_function
    return declare(builder.module, ir.FunctionType(result, arguments), name)


@intrinsic
def load(typing: Any, array: Any, index: Any) -> Any:
    """array[index] as a vector."""
    vector = Vector(array.dtype)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(address(context, builder, array, args[0], args[1]), align=4)

    return vector(array, types.int64), generate


@intrinsic
def store(typing: Any, array: Any, index: Any, value: Any) -> Any:
    """array[index] = value."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[2], address(context, builder, array, args[0], args[1]), align=4)
        return context.get_dummy_value()

    return types.void(array, types.int64, value), generate


def _arithmetic(name: str) -> Any:
    @intrinsic
    def operation(typing: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return getattr(builder, name)(*args)

        return a(a, a), generate

    return operation


add = _arithmetic("fadd")
mul = _arithmetic("fmul")


@intrinsic
def neg(typing: Any, a: Any) -> Any:
    """-a."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fneg(args[0])

    return a(a), generate


@intrinsic
def fma(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c, fused where the machine fuses."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return llvm(builder, "fmuladd", *args)

    return a(a, a, a), generate


@intrinsic
def fill(typing: Any, array: Any, value: Any) -> Any:
    """A vector of `value` in every lane, of the type that `array` holds."""
    vector = Vector(array.dtype)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = context.get_value_type(vector)
        scalar = context.cast(builder, args[1], value, array.dtype)
        first = builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
        mask = ir.Constant(ir.VectorType(ir.IntType(32), vector.width), [0] * vector.width)
        return builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), mask)

    return vector(array, value), generate


@intrinsic
def parity(typing: Any, bits: Any) -> Any:
    """Number of set bits modulo 2."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(64)
        function = _declared(builder, "llvm.ctpop.i64", word, [word])
        return builder.and_(builder.call(function, args), ir.Constant(word, 1))

    return types.int64(types.int64), generate


@intrinsic
def sincos(typing: Any, angle: Any) -> Any:
    """(sin, cos) of a vector, to 2 units in the last place of 1; NaN and infinities give NaN.

    angle = k pi/2 + r with |r| <= pi/4, k pi/2 taken off in three parts; then Taylor series of r, whose first term
    left out is below 2^-26 (float32) or 2^-55 (float64). Angles that are too large for this give NaN: from about 10^9
    (float32), whose neighbours are many turns apart.
    """
    bits = angle.dtype.bitwidth

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = args[0].type
        whole = ir.VectorType(ir.IntType(bits), angle.width)

        def number(value: float) -> Any:
            return ir.Constant(kind, [value] * angle.width)

        def integer(value: int) -> Any:
            return ir.Constant(whole, [value] * angle.width)

        x = args[0]
        k = llvm(builder, "rint", builder.fmul(x, number(2 / math.pi)))
        r, minus = x, builder.fneg(k)
        for part in _half_pi(angle.dtype):
            r = llvm(builder, "fma", minus, number(part), r)
        small = builder.fcmp_ordered("<=", llvm(builder, "fabs", r), number(1.0))
        r = builder.select(small, r, number(math.nan))
        square = builder.fmul(r, r)
        series = []
        for start in (1, 0):  # sine: odd powers; cosine: even powers
            powers = range(start, _DEGREE[bits] + 1, 2)
            total = None
            for n in reversed(powers):
                term = number((-1) ** (n // 2) / math.factorial(n))
                total = term if total is None else llvm(builder, "fmuladd", total, square, term)
            series.append(total)
        sine, cosine = builder.fmul(series[0], r), series[1]
        cast = _declared(builder, f"llvm.fptosi.sat.v{angle.width}i{bits}.v{angle.width}f{bits}", whole, [kind])
        quadrant = builder.call(cast, [k])

        def bit(value: Any, mask: int) -> Any:
            return builder.icmp_signed("!=", builder.and_(value, integer(mask)), integer(0))

        swapped = bit(quadrant, 1)
        s, c = builder.select(swapped, cosine, sine), builder.select(swapped, sine, cosine)
        s = builder.select(bit(quadrant, 2), builder.fneg(s), s)
        c = builder.select(bit(builder.add(quadrant, integer(1)), 2), builder.fneg(c), c)
        return context.make_tuple(builder, signature.return_type, [s, c])

    pair: Any = types.UniTuple(angle, 2)  # type: ignore[no-untyped-call]
    return pair(angle), generate


_DEGREE = {32: 10, 64: 18}  # of the Taylor series


def _half_pi(dtype: Any) -> list[float]:
    """pi / 2 as a sum of three floats of the type, each as exact as it can be."""
    rest = Fraction("1.5707963267948966192313216916397514420985846996875529104874722961539082")
    parts = []
    for _ in range(3):
        parts.append(float(np.float32(float(rest))) if dtype.bitwidth == 32 else float(rest))
        rest -= Fraction(parts[-1])
    return parts
