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

from qfed.quantum import blocks, coset, product, tables, walsh
from qfed.quantum import lanes as lanes_of
from qfed.quantum import measure as measuring
from qfed.quantum.cache import fingerprint, keep_on_disk
from qfed.quantum.compiler import compiled, part
from qfed.quantum.lanes import fill, load, mul, store
from qfed.quantum.plan import Plan

_rotate_block, _undo_block = blocks.rotate_block, blocks.undo_block
_apply_fold, _undo_fold = walsh.apply_fold, walsh.undo_fold
_single_wires, _build = product.single_wires, product.build
_pull_wires, _undo_wires = product.pull, product.undo_wires
_measure, _pull = measuring.measure, measuring.pull
_site_tables, _own_tables, _pull_angles = tables.site_tables, tables.own_tables, tables.pull_angles
_into_lanes, _out_of_lanes = tables.into_lanes, tables.out_of_lanes


def scratch_vectors(plan: Plan, features: int, weights: int, lanes: int) -> int:
    """Vectors of scratch that a plan needs; see `_parts`."""
    vectors = 7 * plan.size + 4 * (plan.rows + 1) + 8 * plan.wires + plan.outputs + features + weights
    return vectors + -(-2 * len(plan.folds) * plan.size // lanes) + 3 * -(-len(plan.shared) // lanes)


@part
def _piece(scratch: Any, at: int, vectors: int) -> Any:
    lanes = 64 // scratch.itemsize
    return scratch[at * lanes : (at + vectors) * lanes]


@part
def _parts(scratch: Any, size: int, count: int, rows: int, outputs: int, features: int, weights: int) -> Any:
    """S, L, partial products (2N vectors each), transform (N), cosine, sine, slopes, single wires and their
    adjoint, outputs, dL/dx, dL/dw; then numbers: shared angles, tables of folds.
    """
    a = 7 * size
    b = a + 4 * (rows + 1)
    c = b + 8 * count
    d = c + outputs
    e = d + features
    return (
        _piece(scratch, 0, 2 * size),
        _piece(scratch, 2 * size, 2 * size),
        _piece(scratch, 4 * size, 2 * size),
        _piece(scratch, 6 * size, size),
        _piece(scratch, a, rows + 1),
        _piece(scratch, a + rows + 1, 2 * (rows + 1)),
        _piece(scratch, a + 3 * (rows + 1), rows + 1),
        _piece(scratch, b, 4 * count),
        _piece(scratch, b + 4 * count, 4 * count),
        _piece(scratch, c, outputs),
        _piece(scratch, d, features),
        _piece(scratch, e, weights),
        scratch[(e + weights) * (64 // scratch.itemsize) :],
    )


@part
def _rows(packed: Any, k: int) -> Any:
    """Array k of a routine's integers, as a list."""
    at, length = packed[3 * k], packed[3 * k + 1] * packed[3 * k + 2]
    return packed[at : at + length]


@part
def _table(packed: Any, k: int) -> Any:
    """Array k of a routine's integers, as a table."""
    return _rows(packed, k).reshape((packed[3 * k + 1], packed[3 * k + 2]))


@part
def _unpack(packed: Any) -> Any:
    """Arrays of a plan and where its angles come from; the order is routine.py's."""
    return (
        _rows(packed, 1),
        _rows(packed, 2),
        _table(packed, 3),
        _table(packed, 4),
        _table(packed, 5),
        _table(packed, 6),
        _table(packed, 7),
        _table(packed, 8),
        _table(packed, 9),
        _table(packed, 10),
        _rows(packed, 11),
        _rows(packed, 12),
    )


@part
def _locate(offsets: Any, lanes: int, group: int) -> Any:
    """Site and first record of a group; a group's records belong to one site."""
    site = 0
    while True:
        records = offsets[site + 1] - offsets[site]
        groups = (records + lanes - 1) // lanes
        if group < groups:
            return site, offsets[site] + group * lanes
        group -= groups
        site += 1


@part
def _start(
    state: Any,
    partial: Any,
    wires: Any,
    prefix: Any,
    cosine: Any,
    sine: Any,
    initial: Any,
    start: int,
    stop: int,
    count: int,
) -> None:
    """S <- S_0: prepared amplitudes, a product state, or |0...0>."""
    size = 1 << count
    if prefix.shape[0] > 0:
        _single_wires(prefix, cosine, sine, wires, count)
        _build(wires, partial, state, count, True)
        return
    zero = fill(state, 0.0)
    for q in range(2 * size):
        store(state, q, zero)
    if initial.shape[1] > 0:
        _into_lanes(initial, start, stop, 64 // state.itemsize, state)
    else:
        store(state, 0, fill(state, 1.0))


@part
def _evolve(state: Any, steps: Any, block_rows: Any, cosine: Any, sine: Any, fold_tables: Any, size: int) -> None:
    for t in range(steps.shape[0]):
        k = steps[t, 1]
        if steps[t, 0] == 0:
            _rotate_block(state, block_rows[k], cosine, sine, size)
        else:
            at = 2 * k * size
            _apply_fold(state, fold_tables[at : at + size], fold_tables[at + size : at + 2 * size], size)


@part
def _forward(
    first: int,
    last: int,
    packed: Any,
    numbers: Any,
    inputs: Any,
    weights: Any,
    offsets: Any,
    initial: Any,
    scratch: Any,
    final: Any,
    out: Any,
) -> None:
    """Groups first..last: out (B, M) and, where `final` has rows, the final states (G, 2N lanes)."""
    count, rows = packed[0], packed[1]
    size, lanes, features = 1 << count, 64 // scratch.itemsize, inputs.shape[1]
    shared, own, prefix, steps, block_rows, folds, members, diagonal, terms, outcomes, starts, source = _unpack(packed)
    coefficients, constant = numbers[: diagonal.shape[0] + terms.shape[0]], numbers[packed[2] : packed[2] + rows]
    factor = numbers[packed[2] + rows :]
    state, _, partial, work, cosine, sine, _, wires, _, results, _, _, tail = _parts(
        scratch, size, count, rows, out.shape[1], features, weights.shape[1]
    )
    angle_numbers = 3 * lanes * ((shared.shape[0] + lanes - 1) // lanes)
    angles, fold_tables = tail[:angle_numbers], tail[angle_numbers:]
    site, start = 0, 0
    if first < last:
        site, start = _locate(offsets, lanes, first)
    fresh = True
    for g in range(first, last):
        stop = min(start + lanes, offsets[site + 1])
        if fresh:
            _site_tables(
                shared, rows, starts, source, factor, constant, features, weights[site],
                folds, members, cosine, sine, fold_tables, angles, size,
            )  # fmt: skip
        _own_tables(own, starts, source, factor, constant, inputs, weights[site], start, stop, lanes, cosine, sine)
        psi = final[g] if final.shape[0] > 0 else state
        _start(psi, partial, wires, prefix, cosine, sine, initial, start, stop, count)
        _evolve(psi, steps, block_rows, cosine, sine, fold_tables, size)
        _measure(psi, diagonal, terms, coefficients, outcomes, work, results, size)
        _out_of_lanes(results, start, stop, lanes, out)
        start, fresh = stop, False
        while site + 1 < offsets.shape[0] - 1 and start >= offsets[site + 1]:
            site, fresh = site + 1, True


@part
def _backward(
    first: int,
    last: int,
    packed: Any,
    numbers: Any,
    inputs: Any,
    weights: Any,
    offsets: Any,
    initial: Any,
    scratch: Any,
    final: Any,
    cotangent: Any,
    unit: Any,
    of_inputs: Any,
    of_weights: Any,
    of_initial: Any,
) -> None:
    """Groups first..last: gradients of every record, of_inputs (B, D), of_weights (B, P), of_initial (B, N).

    `unit` is (1, -1) as vectors.
    """
    count, rows = packed[0], packed[1]
    size, lanes, features = 1 << count, 64 // scratch.itemsize, inputs.shape[1]
    shared, own, prefix, steps, block_rows, folds, members, diagonal, terms, outcomes, starts, source = _unpack(packed)
    coefficients, constant = numbers[: diagonal.shape[0] + terms.shape[0]], numbers[packed[2] : packed[2] + rows]
    factor = numbers[packed[2] + rows :]
    state, adjoint, partial, work, cosine, sine, slopes, wires, pulled, results, pulled_x, pulled_w, tail = _parts(
        scratch, size, count, rows, cotangent.shape[1], features, weights.shape[1]
    )
    angle_numbers = 3 * lanes * ((shared.shape[0] + lanes - 1) // lanes)
    angles, fold_tables = tail[:angle_numbers], tail[angle_numbers:]
    site, start = 0, 0
    if first < last:
        site, start = _locate(offsets, lanes, first)
    fresh = True
    for g in range(first, last):
        stop = min(start + lanes, offsets[site + 1])
        if fresh:
            _site_tables(
                shared, rows, starts, source, factor, constant, features, weights[site],
                folds, members, cosine, sine, fold_tables, angles, size,
            )  # fmt: skip
        _own_tables(own, starts, source, factor, constant, inputs, weights[site], start, stop, lanes, cosine, sine)
        if final.shape[0] > 0:
            kept = final[g]
            for q in range(2 * size):
                store(state, q, load(kept, q))
            if prefix.shape[0] > 0:
                _single_wires(prefix, cosine, sine, wires, count)
                _build(wires, partial, state, count, False)
        else:
            _start(state, partial, wires, prefix, cosine, sine, initial, start, stop, count)
            _evolve(state, steps, block_rows, cosine, sine, fold_tables, size)
        _into_lanes(cotangent, start, stop, lanes, results)
        _pull(state, adjoint, diagonal, terms, coefficients, outcomes, results, work, size)
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
        _pull_angles(slopes, rows, starts, source, factor, features, pulled_x, pulled_w)
        _out_of_lanes(pulled_x, start, stop, lanes, of_inputs)
        _out_of_lanes(pulled_w, start, stop, lanes, of_weights)
        if of_initial.shape[1] > 0:
            two = fill(state, 2.0)
            for p in range(of_initial.shape[1]):
                store(adjoint, p, mul(two, load(adjoint, p)))
            _out_of_lanes(adjoint, start, stop, lanes, of_initial)
        start, fresh = stop, False
        while site + 1 < offsets.shape[0] - 1 and start >= offsets[site + 1]:
            site, fresh = site + 1, True


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


forward, backward = _entries(fingerprint(blocks, coset, lanes_of, measuring, product, tables, walsh))
keep_on_disk(forward, backward)
