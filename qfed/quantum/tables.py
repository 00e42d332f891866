"""Between records and lanes: angles in, tables of cosines and sines; results out.

Record b of a site is lane b mod lanes of the site's group b div lanes; lanes beyond the batch compute angle 0
(and amplitude 0), and nothing of them is read back.
"""

from __future__ import annotations

import math
from typing import Any

from qfed.quantum.compiler import compiled
from qfed.quantum.lanes import fill, neg, store
from qfed.quantum.walsh import fold_phases


@compiled
def site_tables(
    shared: Any, rows: int, angles: Any, folds: Any, members: Any, cosine: Any, sine: Any, fold_tables: Any, size: int
) -> None:
    """Tables of the shared rows and of the folds (F, 2, N) from a site's shared angles, and of "nothing"."""
    for j in range(shared.shape[0]):
        half = angles[j] * fold_tables.dtype.type(0.5)
        s = fill(cosine, math.sin(half))
        store(cosine, shared[j], fill(cosine, math.cos(half)))
        store(sine, 2 * shared[j], s)
        store(sine, 2 * shared[j] + 1, neg(s))
    store(cosine, rows, fill(cosine, 1.0))
    store(sine, 2 * rows, fill(cosine, 0.0))
    store(sine, 2 * rows + 1, fill(cosine, 0.0))
    for f in range(folds.shape[0]):
        phases = fold_tables[2 * f * size : (2 * f + 1) * size]
        sines = fold_tables[(2 * f + 1) * size : (2 * f + 2) * size]
        fold_phases(members, folds[f, 0], folds[f, 1], angles, phases)
        for p in range(size):
            sines[p] = math.sin(phases[p])
            phases[p] = math.cos(phases[p])


@compiled
def own_tables(own: Any, angles: Any, start: int, lanes: int, cosine: Any, sine: Any) -> None:
    """Tables of the rows with an angle a record, for records start .. start + lanes of angles (B, Ro)."""
    last = min(start + lanes, angles.shape[0])
    for j in range(own.shape[0]):
        row = own[j]
        for b in range(start, last):
            half = angles[b, j] * cosine.dtype.type(0.5)
            s = math.sin(half)
            lane = b - start
            cosine[row * lanes + lane] = math.cos(half)
            sine[2 * row * lanes + lane] = s
            sine[(2 * row + 1) * lanes + lane] = -s
        for lane in range(last - start, lanes):
            cosine[row * lanes + lane] = 1.0
            sine[2 * row * lanes + lane] = 0.0
            sine[(2 * row + 1) * lanes + lane] = 0.0


@compiled
def into_lanes(values: Any, start: int, lanes: int, vectors: Any) -> None:
    """Records start .. start + lanes of values (B, C) -> vectors (C,), zero beyond the batch."""
    last = min(start + lanes, values.shape[0])
    for b in range(start, last):
        for c in range(values.shape[1]):
            vectors[c * lanes + b - start] = values[b, c]
    for lane in range(last - start, lanes):
        for c in range(values.shape[1]):
            vectors[c * lanes + lane] = 0.0


@compiled
def out_of_lanes(vectors: Any, rows: Any, start: int, lanes: int, values: Any) -> None:
    """vectors[rows[c]] -> records start .. start + lanes of values (B, C)."""
    last = min(start + lanes, values.shape[0])
    for b in range(start, last):
        for c in range(rows.shape[0]):
            values[b, c] = vectors[rows[c] * lanes + b - start]
