"""The compiled kernel: forward and adjoint sweep of any plan, a group of records (one a lane) at a time.

    forward   S <- step_T .. step_1 S_0,   out[m] = sum_terms c (S, P S)
    adjoint   L = sum_m cot[m] P_m S;  for each rotation, last first:  dL/dt = sum_pairs e (L_a S_b - L_b S_a),
              then S <- R^-1 S, L <- R^-1 L;   dL/dS_0 = 2 L

(Jones & Gacon, arXiv:2009.02823, adjoint differentiation; here in the real form of program.py.)
Two states a group, whatever the depth. A plan is data, so one compilation a dtype serves all circuits. `scratch`
holds the working arrays of vectors of one thread, in the order of `scratch_vectors`. A NaN in one record's angles
stays in that record's lane. No checks here: shapes are execute.py's business.
"""

from __future__ import annotations

from typing import Any

from qfed.quantum import blocks, product, walsh
from qfed.quantum import measure as measuring
from qfed.quantum.cache import keep_on_disk
from qfed.quantum.compiler import compiled
from qfed.quantum.lanes import fill, load, mul, neg, store

_rotate_block, _undo_block = blocks.rotate_block, blocks.undo_block
_apply_fold, _undo_fold = walsh.apply_fold, walsh.undo_fold
_single_wires, _build, _pull_wires, _undo_wires = (
    product.single_wires,
    product.build,
    product.pull,
    product.undo_wires,
)
_measure, _pull = measuring.measure, measuring.pull


def scratch_vectors(size: int, wires: int, rows: int) -> int:
    """Vectors of scratch: S, L, partial products (2N each), transform (N), tables, slopes, single wires, units."""
    return 7 * size + 4 * (rows + 1) + 8 * wires + 2


@compiled
def _fill_tables(
    cosine: Any, sine: Any, shared: Any, own: Any, shared_cosine: Any, shared_sine: Any, own_cosine: Any, own_sine: Any
) -> None:
    for j in range(shared.shape[0]):
        row = shared[j]
        s = fill(cosine, shared_sine[j])
        store(cosine, row, fill(cosine, shared_cosine[j]))
        store(sine, 2 * row, s)
        store(sine, 2 * row + 1, neg(s))
    for j in range(own.shape[0]):
        row = own[j]
        s = load(own_sine, j)
        store(cosine, row, load(own_cosine, j))
        store(sine, 2 * row, s)
        store(sine, 2 * row + 1, neg(s))
    rows = shared.shape[0] + own.shape[0]
    store(cosine, rows, fill(cosine, 1.0))
    store(sine, 2 * rows, fill(cosine, 0.0))
    store(sine, 2 * rows + 1, fill(cosine, 0.0))


@compiled
def _start(state: Any, partial: Any, wires: Any, prefix: Any, cosine: Any, sine: Any, initial: Any, count: int) -> None:
    """S <- S_0: prepared amplitudes, a product state, or |0...0>."""
    size = 1 << count
    if prefix.shape[0] > 0:
        _single_wires(prefix, cosine, sine, wires, count)
        _build(wires, partial, state, count)
        return
    zero = fill(state, 0.0)
    for q in range(2 * size):
        store(state, q, zero)
    if initial.shape[0] > 0:
        for p in range(initial.shape[0] // (64 // state.itemsize)):
            store(state, p, load(initial, p))
    else:
        store(state, 0, fill(state, 1.0))


@compiled
def forward(
    first: int,
    last: int,
    groups_per_site: int,
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
    shared_cosine: Any,
    shared_sine: Any,
    own_cosine: Any,
    own_sine: Any,
    fold_cosine: Any,
    fold_sine: Any,
    initial: Any,
    scratch: Any,
    final: Any,
    out: Any,
) -> None:
    """Groups first..last: out (G, M, lanes) and, where `final` has rows, the final state (G, 2N, lanes)."""
    size = 1 << count
    lanes = 64 // scratch.itemsize
    rows = shared.shape[0] + own.shape[0]
    partial = scratch[4 * size * lanes : 6 * size * lanes]
    work = scratch[6 * size * lanes : 7 * size * lanes]
    tables = scratch[7 * size * lanes :]
    cosine = tables[: (rows + 1) * lanes]
    sine = tables[(rows + 1) * lanes : 3 * (rows + 1) * lanes]
    wires = tables[4 * (rows + 1) * lanes :]
    for g in range(first, last):
        site = g // groups_per_site
        state = final[g] if final.shape[0] > 0 else scratch[: 2 * size * lanes]
        _fill_tables(cosine, sine, shared, own, shared_cosine[site], shared_sine[site], own_cosine[g], own_sine[g])
        _start(state, partial, wires, prefix, cosine, sine, initial[g], count)
        for t in range(steps.shape[0]):
            if steps[t, 0] == 0:
                _rotate_block(state, block_rows[steps[t, 1]], cosine, sine, size)
            else:
                f = steps[t, 1]
                _apply_fold(state, fold_cosine[site, f], fold_sine[site, f], size)
        _measure(state, diagonal, diagonal_coefficients, terms, coefficients, outcomes, work, out[g], size)


@compiled
def backward(
    first: int,
    last: int,
    groups_per_site: int,
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
    shared_cosine: Any,
    shared_sine: Any,
    own_cosine: Any,
    own_sine: Any,
    fold_cosine: Any,
    fold_sine: Any,
    initial: Any,
    scratch: Any,
    final: Any,
    cotangent: Any,
    gradient: Any,
    initial_gradient: Any,
) -> None:
    """Groups first..last: per-record gradient (G, R + 1, lanes) and initial_gradient (G, N, lanes)."""
    size = 1 << count
    lanes = 64 // scratch.itemsize
    rows = shared.shape[0] + own.shape[0]
    state = scratch[: 2 * size * lanes]
    adjoint = scratch[2 * size * lanes : 4 * size * lanes]
    partial = scratch[4 * size * lanes : 6 * size * lanes]
    work = scratch[6 * size * lanes : 7 * size * lanes]
    tables = scratch[7 * size * lanes :]
    cosine = tables[: (rows + 1) * lanes]
    sine = tables[(rows + 1) * lanes : 3 * (rows + 1) * lanes]
    wires = tables[4 * (rows + 1) * lanes :]
    pulled = wires[4 * count * lanes :]
    unit = pulled[4 * count * lanes :]
    store(unit, 0, fill(unit, 1.0))
    store(unit, 1, fill(unit, -1.0))
    for g in range(first, last):
        site = g // groups_per_site
        _fill_tables(cosine, sine, shared, own, shared_cosine[site], shared_sine[site], own_cosine[g], own_sine[g])
        if prefix.shape[0] > 0 or final.shape[0] == 0:
            _start(state, partial, wires, prefix, cosine, sine, initial[g], count)
        if final.shape[0] > 0:
            state[:] = final[g]
        else:
            for t in range(steps.shape[0]):
                if steps[t, 0] == 0:
                    _rotate_block(state, block_rows[steps[t, 1]], cosine, sine, size)
                else:
                    f = steps[t, 1]
                    _apply_fold(state, fold_cosine[site, f], fold_sine[site, f], size)
        _pull(state, adjoint, diagonal, diagonal_coefficients, terms, coefficients, outcomes, cotangent[g], work, size)
        slopes = gradient[g]
        for i in range(steps.shape[0]):
            t = steps.shape[0] - 1 - i
            if steps[t, 0] == 0:
                _undo_block(state, adjoint, block_rows[steps[t, 1]], cosine, sine, unit, slopes, size)
            else:
                f = steps[t, 1]
                _undo_fold(
                    state,
                    adjoint,
                    fold_cosine[site, f],
                    fold_sine[site, f],
                    members,
                    folds[f, 0],
                    folds[f, 1],
                    work,
                    slopes,
                    size,
                )
        if prefix.shape[0] > 0:
            _pull_wires(wires, partial, adjoint, pulled, count)
            _undo_wires(prefix, cosine, sine, wires, pulled, slopes)
        if initial.shape[1] > 0:
            two = fill(state, 2.0)
            for p in range(initial.shape[1] // lanes):
                store(initial_gradient[g], p, mul(two, load(adjoint, p)))


phases = walsh.fold_phases
keep_on_disk(forward, backward, phases)
