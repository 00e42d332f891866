"""Between records and lanes: inputs and weights in, tables of cosines and sines; results and gradients out.

    angle[r] = constant[r] + sum_e factor[e] (x, w)[source[e]]     e in starts[r] .. starts[r + 1]

A source below D is an input of the record, the others are weights of its site. Record b of a group's site is lane
b - start; lanes beyond the site's records compute angle 0 (and amplitude 0), and nothing of them is read back.
"""

from __future__ import annotations

import math
from typing import Any

from qfed.quantum.compiler import part
from qfed.quantum.lanes import fill, fma, load, neg, sincos, store
from qfed.quantum.walsh import fold_phases


@part
def _of_weights(row: int, starts: Any, source: Any, factor: Any, constant: Any, features: int, weights: Any) -> Any:
    angle = constant[row]
    for e in range(starts[row], starts[row + 1]):
        if source[e] >= features:
            angle += factor[e] * weights[source[e] - features]
    return angle


@part
def site_tables(
    shared: Any,
    rows: int,
    starts: Any,
    source: Any,
    factor: Any,
    constant: Any,
    features: int,
    weights: Any,
    folds: Any,
    members: Any,
    cosine: Any,
    sine: Any,
    fold_tables: Any,
    angles: Any,
    size: int,
) -> None:
    """Tables of the shared rows and of the folds (F, 2, N) from a site's weights, and of "nothing"."""
    lanes = 64 // cosine.itemsize
    for j in range(shared.shape[0]):
        angles[j] = _of_weights(shared[j], starts, source, factor, constant, features, weights)
    for f in range(folds.shape[0]):
        phases = fold_tables[2 * f * size : (2 * f + 1) * size]
        sines = fold_tables[(2 * f + 1) * size : (2 * f + 2) * size]
        fold_phases(members, folds[f, 0], folds[f, 1], angles, phases)
        if size >= lanes:
            for p in range(size // lanes):
                s, c = sincos(load(phases, p))
                store(sines, p, s)
                store(phases, p, c)
        else:
            for p in range(size):
                sines[p] = math.sin(phases[p])
                phases[p] = math.cos(phases[p])
    padded = angles.shape[0] // 3  # whole vectors: half angles, sines, cosines
    for j in range(padded):
        angles[j] = angles[j] * angles.dtype.type(0.5) if j < shared.shape[0] else angles.dtype.type(0.0)
    for j in range(padded // lanes):
        s, c = sincos(load(angles, j))
        store(angles, padded // lanes + j, s)
        store(angles, 2 * padded // lanes + j, c)
    for j in range(shared.shape[0]):
        s = fill(cosine, angles[padded + j])
        store(cosine, shared[j], fill(cosine, angles[2 * padded + j]))
        store(sine, 2 * shared[j], s)
        store(sine, 2 * shared[j] + 1, neg(s))
    store(cosine, rows, fill(cosine, 1.0))
    store(sine, 2 * rows, fill(cosine, 0.0))
    store(sine, 2 * rows + 1, fill(cosine, 0.0))


@part
def own_tables(
    own: Any,
    starts: Any,
    source: Any,
    factor: Any,
    constant: Any,
    inputs: Any,
    weights: Any,
    start: int,
    stop: int,
    lanes: int,
    cosine: Any,
    sine: Any,
) -> None:
    """Tables of the rows with an angle a record, for records start .. stop of inputs (B, D)."""
    features = inputs.shape[1]
    for j in range(own.shape[0]):
        row = own[j]
        base = _of_weights(row, starts, source, factor, constant, features, weights)
        at = row * lanes
        for b in range(start, stop):
            angle = base
            for e in range(starts[row], starts[row + 1]):
                if source[e] < features:
                    angle += factor[e] * inputs[b, source[e]]
            cosine[at + b - start] = angle * 0.5
        for lane in range(stop - start, lanes):
            cosine[at + lane] = 0.0
        s, c = sincos(load(cosine, row))
        store(cosine, row, c)
        store(sine, 2 * row, s)
        store(sine, 2 * row + 1, neg(s))


@part
def pull_angles(
    slopes: Any, rows: int, starts: Any, source: Any, factor: Any, features: int, of_inputs: Any, of_weights: Any
) -> None:
    """Vectors of dL/dangle (R,) -> vectors of dL/dx (D,) and dL/dw (P,)."""
    lanes = 64 // slopes.itemsize
    zero = fill(slopes, 0.0)
    for c in range(features):
        store(of_inputs, c, zero)
    for c in range(of_weights.shape[0] // lanes):
        store(of_weights, c, zero)
    for row in range(rows):
        slope = load(slopes, row)
        for e in range(starts[row], starts[row + 1]):
            f = fill(slopes, factor[e])
            if source[e] < features:
                store(of_inputs, source[e], fma(f, slope, load(of_inputs, source[e])))
            else:
                at = source[e] - features
                store(of_weights, at, fma(f, slope, load(of_weights, at)))


@part
def into_lanes(values: Any, start: int, stop: int, lanes: int, vectors: Any) -> None:
    """Records start .. stop of values (B, C) -> vectors (C,), zero beyond them."""
    for b in range(start, stop):
        for c in range(values.shape[1]):
            vectors[c * lanes + b - start] = values[b, c]
    for lane in range(stop - start, lanes):
        for c in range(values.shape[1]):
            vectors[c * lanes + lane] = 0.0


@part
def out_of_lanes(vectors: Any, start: int, stop: int, lanes: int, values: Any) -> None:
    """vectors (C,) -> records start .. stop of values (B, C)."""
    for c in range(values.shape[1]):
        for b in range(start, stop):
            values[b, c] = vectors[c * lanes + b - start]
