"""The product state at the start of a circuit, and its adjoint.

    P_{b+1}[p + 2^b i] = phi_b[i] P_b[p],   P_0 = 1        sum_b 2^b = 2^W multiplications for W wires
    adjoint: l_phi_b[i] = sum_p L[p + 2^b i] conj(P_b[p]),   L <- sum_i conj(phi_b[i]) L[p + 2^b i]

Arrays of vectors: wires (4 W,) = (Re 0, Re 1, Im 0, Im 1) of every phi_b; partial (2 N,) holds P_b at 2^b, Re and
Im apart by N.
"""

from __future__ import annotations

from typing import Any

from qfed.quantum.blocks import rotate_one, slope_one
from qfed.quantum.compiler import part
from qfed.quantum.lanes import add, fill, fma, load, mul, neg, store


@part
def single_wires(prefix: Any, cosine: Any, sine: Any, wires: Any, count: int) -> None:
    """phi_b of all wires."""
    for b in range(count):
        store(wires, 4 * b, fill(wires, 1.0))
        for a in range(1, 4):
            store(wires, 4 * b + a, fill(wires, 0.0))
    for k in range(prefix.shape[0]):
        rotate_one(wires, 4 * prefix[k, 4], prefix[k, 1], prefix[k, 2], prefix[k, 3], cosine, sine, prefix[k, 0])


@part
def build(wires: Any, partial: Any, state: Any, count: int, whole: bool) -> None:
    """partial <- P_0 .. P_{W-1}; and, if `whole`, state <- tensor_b phi_b."""
    size = 1 << count
    store(partial, 1, fill(wires, 1.0))
    store(partial, size + 1, fill(wires, 0.0))
    for b in range(count if whole else count - 1):
        a_re, b_re = load(wires, 4 * b), load(wires, 4 * b + 1)
        a_im, b_im = load(wires, 4 * b + 2), load(wires, 4 * b + 3)
        half = 1 << b
        final = b == count - 1
        start = 0 if final else 2 * half
        for p in range(half):
            re, im = load(partial, half + p), load(partial, size + half + p)
            low_re, low_im = fma(a_re, re, mul(neg(a_im), im)), fma(a_re, im, mul(a_im, re))
            high_re, high_im = fma(b_re, re, mul(neg(b_im), im)), fma(b_re, im, mul(b_im, re))
            target = state if final else partial
            store(target, start + p, low_re)
            store(target, start + half + p, high_re)
            store(target, size + start + p, low_im)
            store(target, size + start + half + p, high_im)


@part
def pull(wires: Any, partial: Any, adjoint: Any, pulled: Any, count: int) -> None:
    """pulled (4 W,) <- adjoint of every phi_b; destroys adjoint."""
    size = 1 << count
    for i in range(count):
        b = count - 1 - i
        half = 1 << b
        a_re, b_re = load(wires, 4 * b), load(wires, 4 * b + 1)
        a_im, b_im = load(wires, 4 * b + 2), load(wires, 4 * b + 3)
        s_re = t_re = s_im = t_im = fill(wires, 0.0)
        for p in range(half):
            re, im = load(partial, half + p), load(partial, size + half + p)
            l_re, l_im = load(adjoint, p), load(adjoint, size + p)
            h_re, h_im = load(adjoint, half + p), load(adjoint, size + half + p)
            s_re = fma(l_re, re, fma(l_im, im, s_re))
            s_im = fma(l_im, re, fma(neg(l_re), im, s_im))
            t_re = fma(h_re, re, fma(h_im, im, t_re))
            t_im = fma(h_im, re, fma(neg(h_re), im, t_im))
            store(adjoint, p, fma(a_re, l_re, fma(a_im, l_im, fma(b_re, h_re, mul(b_im, h_im)))))
            low = fma(a_re, l_im, mul(neg(a_im), l_re))
            store(adjoint, size + p, add(low, fma(b_re, h_im, mul(neg(b_im), h_re))))
        store(pulled, 4 * b, s_re)
        store(pulled, 4 * b + 1, t_re)
        store(pulled, 4 * b + 2, s_im)
        store(pulled, 4 * b + 3, t_im)


@part
def undo_wires(prefix: Any, cosine: Any, sine: Any, wires: Any, pulled: Any, out: Any) -> None:
    """out[row] = dL/dt of the prefix's rows; destroys wires and pulled."""
    for i in range(prefix.shape[0]):
        k = prefix.shape[0] - 1 - i
        row, x, z, negative, at = prefix[k, 0], prefix[k, 1], prefix[k, 2], prefix[k, 3], 4 * prefix[k, 4]
        store(out, row, slope_one(wires, pulled, at, x, z, negative))
        rotate_one(wires, at, x, z, negative ^ 1, cosine, sine, row)
        rotate_one(pulled, at, x, z, negative ^ 1, cosine, sine, row)
