"""The compiled kernel: forward and adjoint sweep of any plan, a group of records (one a lane) at a time.

    forward   S <- step_T .. step_1 S_0,   out[m] = sum_terms c (S, P S)
    adjoint   L = sum_m cot[m] P_m S;  for each rotation, last first:  dL/dt = sum_pairs e (L_a S_b - L_b S_a),
              then S <- R^-1 S, L <- R^-1 L;   dL/dS_0 = 2 L

(Jones & Gacon, arXiv:2009.02823, adjoint differentiation; here in the real form of program.py.)
Two states a group, whatever the depth. A plan is data, so one compilation a dtype serves all circuits. `scratch`
holds the working arrays of vectors of one thread (`_parts`). A NaN in one record's angles stays in that record's
lane. No checks here: shapes are execute.py's business.
"""

from __future__ import annotations

from typing import Any

from qfed.quantum import blocks, product, tables, walsh
from qfed.quantum import lanes as lanes_of
from qfed.quantum import measure as measuring
from qfed.quantum.cache import fingerprint, keep_on_disk
from qfed.quantum.compiler import compiled
from qfed.quantum.lanes import fill, load, mul, store

_rotate_block, _undo_block = blocks.rotate_block, blocks.undo_block
_apply_fold, _undo_fold = walsh.apply_fold, walsh.undo_fold
_single_wires, _build = product.single_wires, product.build
_pull_wires, _undo_wires = product.pull, product.undo_wires
_measure, _pull = measuring.measure, measuring.pull
_site_tables, _own_tables = tables.site_tables, tables.own_tables
_into_lanes, _out_of_lanes = tables.into_lanes, tables.out_of_lanes


def scratch_vectors(size: int, wires: int, rows: int, folds: int, outputs: int, lanes: int) -> int:
    """Vectors of scratch that a plan needs; see `_parts`."""
    return 7 * size + 4 * (rows + 1) + 8 * wires + outputs + -(-2 * folds * size // lanes)


@compiled
def _parts(scratch: Any, size: int, count: int, rows: int, outputs: int) -> Any:
    """S, L, partial products (2N vectors each), transform (N), cosine, sine, slopes, single wires and their
    adjoint, outputs, tables of folds.
    """
    lanes = 64 // scratch.itemsize
    a = 6 * size * lanes
    b = a + size * lanes
    c = b + (rows + 1) * lanes
    d = c + 2 * (rows + 1) * lanes
    e = d + (rows + 1) * lanes
    f = e + 4 * count * lanes
    g = f + 4 * count * lanes
    h = g + outputs * lanes
    return (
        scratch[: 2 * size * lanes],
        scratch[2 * size * lanes : 4 * size * lanes],
        scratch[4 * size * lanes : a],
        scratch[a:b],
        scratch[b:c],
        scratch[c:d],
        scratch[d:e],
        scratch[e:f],
        scratch[f:g],
        scratch[g:h],
        scratch[h:],
    )


@compiled
def _start(
    state: Any,
    partial: Any,
    wires: Any,
    prefix: Any,
    cosine: Any,
    sine: Any,
    initial: Any,
    start: int,
    count: int,
) -> None:
    """S <- S_0: prepared amplitudes, a product state, or |0...0>."""
    size = 1 << count
    if prefix.shape[0] > 0:
        _single_wires(prefix, cosine, sine, wires, count)
        _build(wires, partial, state, count)
        return
    zero = fill(state, 0.0)
    for q in range(2 * size):
        store(state, q, zero)
    if initial.shape[1] > 0:
        _into_lanes(initial, start, 64 // state.itemsize, state)
    else:
        store(state, 0, fill(state, 1.0))


@compiled
def _evolve(state: Any, steps: Any, block_rows: Any, cosine: Any, sine: Any, fold_tables: Any, size: int) -> None:
    for t in range(steps.shape[0]):
        k = steps[t, 1]
        if steps[t, 0] == 0:
            _rotate_block(state, block_rows[k], cosine, sine, size)
        else:
            at = 2 * k * size
            _apply_fold(state, fold_tables[at : at + size], fold_tables[at + size : at + 2 * size], size)


@compiled
def _forward(
    first: int,
    last: int,
    count: int,
    shared: Any,
    own: Any,
    prefix: Any,
    steps: Any,
    block_rows: Any,
    folds: Any,
    members: Any,
    diagonal: Any,
    diagonal_coefficients: Any,
    terms: Any,
    coefficients: Any,
    outcomes: Any,
    columns: Any,
    own_angles: Any,
    shared_angles: Any,
    initial: Any,
    scratch: Any,
    final: Any,
    out: Any,
) -> None:
    """Groups first..last: out (K, B, M) and, where `final` has rows, the final states (G, 2N lanes)."""
    size = 1 << count
    lanes = 64 // scratch.itemsize
    rows = shared.shape[0] + own.shape[0]
    per_site = (own_angles.shape[1] + lanes - 1) // lanes
    state, _, partial, work, cosine, sine, _, wires, _, results, fold_tables = _parts(
        scratch, size, count, rows, columns.shape[0]
    )
    for g in range(first, last):
        site = g // per_site
        start = (g - site * per_site) * lanes
        if g == first or start == 0:
            _site_tables(shared, rows, shared_angles[site], folds, members, cosine, sine, fold_tables, size)
        _own_tables(own, own_angles[site], start, lanes, cosine, sine)
        psi = final[g] if final.shape[0] > 0 else state
        _start(psi, partial, wires, prefix, cosine, sine, initial[site], start, count)
        _evolve(psi, steps, block_rows, cosine, sine, fold_tables, size)
        _measure(psi, diagonal, diagonal_coefficients, terms, coefficients, outcomes, work, results, size)
        _out_of_lanes(results, columns, start, lanes, out[site])


@compiled
def _backward(
    first: int,
    last: int,
    count: int,
    shared: Any,
    own: Any,
    prefix: Any,
    steps: Any,
    block_rows: Any,
    folds: Any,
    members: Any,
    diagonal: Any,
    diagonal_coefficients: Any,
    terms: Any,
    coefficients: Any,
    outcomes: Any,
    columns: Any,
    own_angles: Any,
    shared_angles: Any,
    initial: Any,
    scratch: Any,
    final: Any,
    cotangent: Any,
    unit: Any,
    amplitudes: Any,
    of_own: Any,
    of_shared: Any,
    of_initial: Any,
) -> None:
    """Groups first..last: gradients of every record, of_own (K, B, Ro), of_shared (K, B, Rs), of_initial (K, B, N).

    `unit` is (1, -1) as vectors; `amplitudes` counts the prepared amplitudes.
    """
    size = 1 << count
    lanes = 64 // scratch.itemsize
    rows = shared.shape[0] + own.shape[0]
    per_site = (own_angles.shape[1] + lanes - 1) // lanes
    state, adjoint, partial, work, cosine, sine, slopes, wires, pulled, results, fold_tables = _parts(
        scratch, size, count, rows, columns.shape[0]
    )
    for g in range(first, last):
        site = g // per_site
        start = (g - site * per_site) * lanes
        if g == first or start == 0:
            _site_tables(shared, rows, shared_angles[site], folds, members, cosine, sine, fold_tables, size)
        _own_tables(own, own_angles[site], start, lanes, cosine, sine)
        if prefix.shape[0] > 0 or final.shape[0] == 0:
            _start(state, partial, wires, prefix, cosine, sine, initial[site], start, count)
        if final.shape[0] > 0:
            kept = final[g]
            for q in range(2 * size):
                store(state, q, load(kept, q))
        else:
            _evolve(state, steps, block_rows, cosine, sine, fold_tables, size)
        _into_lanes(cotangent[site], start, lanes, results)
        _pull(state, adjoint, diagonal, diagonal_coefficients, terms, coefficients, outcomes, results, work, size)
        for i in range(steps.shape[0]):
            t = steps.shape[0] - 1 - i
            k = steps[t, 1]
            if steps[t, 0] == 0:
                _undo_block(state, adjoint, block_rows[k], cosine, sine, unit, slopes, size)
            else:
                at = 2 * k * size
                c, s = fold_tables[at : at + size], fold_tables[at + size : at + 2 * size]
                _undo_fold(state, adjoint, c, s, members, folds[k, 0], folds[k, 1], work, slopes, size)
        if prefix.shape[0] > 0:
            _pull_wires(wires, partial, adjoint, pulled, count)
            _undo_wires(prefix, cosine, sine, wires, pulled, slopes)
        _out_of_lanes(slopes, own, start, lanes, of_own[site])
        _out_of_lanes(slopes, shared, start, lanes, of_shared[site])
        if amplitudes.shape[0] > 0:
            two = fill(state, 2.0)
            for p in range(amplitudes.shape[0]):
                store(adjoint, p, mul(two, load(adjoint, p)))
            _out_of_lanes(adjoint, amplitudes, start, lanes, of_initial[site])


def _entries(sources: str) -> tuple[Any, Any]:
    """Numba's disk cache watches one file; a closure over the fingerprint of all our sources makes it watch all."""

    @compiled
    def forward(*arguments: Any) -> None:
        if len(sources) > 0:
            _forward(*arguments)

    @compiled
    def backward(*arguments: Any) -> None:
        if len(sources) > 0:
            _backward(*arguments)

    return forward, backward


forward, backward = _entries(fingerprint(blocks, lanes_of, measuring, product, tables, walsh))
keep_on_disk(forward, backward)
