"""Fixed public features of square images: a histogram of gradient directions in overlapping cells.

    h[cell, d] = sum over the cell's pixels of |grad| in direction d,   v = sqrt(h) / ||sqrt(h)||_2
    x = min(sqrt(F) v, 2) - 1   in [-1, 1]

Computed from one record alone with constants that were chosen before any record was seen, so it costs no privacy and
works the same at every site.
Source  Dalal, Triggs, CVPR 2005 (HOG): central differences, votes shared between the two nearest directions, cells that
        overlap by half. Departures: eight directions of the full circle, one normalisation of the whole image, and the
        square root of Arandjelovic, Zisserman, CVPR 2012 (RootSIFT), since roots lie closer together than counts do and
        a record's gradient is clipped to the same norm as everyone's.
Shapes  x (N, S^2) in [-1, 1], row by row -> (N, F), F = 8 cells^2: 72 for 8 x 8, 512 for 28 x 28
Cost    O(N S^2)
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from qfed.data.records import Features
from qfed.errors import ConfigError

DIRECTIONS = 8
_SMALLEST = 8


def names(pixels: int) -> tuple[str, ...]:
    """Names of the features of an image of so many pixels; raises ConfigError when it is not square or too small."""
    cells = range(_cells(_side(pixels)))
    return tuple(f"gradient_{row}_{column}_{d}" for row in cells for column in cells for d in range(DIRECTIONS))


def gradient_histogram(x: Features) -> Features:
    """x (N, S^2) -> (N, F) float32."""
    side = _side(x.shape[1])
    image = x.reshape(-1, side, side).astype(np.float64)
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1)), mode="edge")
    down, right = padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1], padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
    votes = _votes(np.hypot(down, right), np.arctan2(down, right))
    stride, cells = _stride(side), _cells(side)
    starts = [stride * cell for cell in range(cells)]
    found = [votes[:, r : r + 2 * stride, c : c + 2 * stride].sum(axis=(1, 2)) for r in starts for c in starts]
    root = np.sqrt(np.stack(found, axis=1).reshape(len(x), cells * cells * DIRECTIONS))
    norm = np.linalg.norm(root, axis=1, keepdims=True)
    unit = np.divide(root, norm, out=np.zeros_like(root), where=norm > 0)  # a blank image has no direction
    return np.asarray(np.minimum(math.sqrt(root.shape[1]) * unit, 2.0) - 1.0, dtype=np.float32)


def _votes(strength: npt.NDArray[np.float64], angle: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(N, S, S) -> (N, S, S, directions): each gradient shared linearly between its two nearest directions."""
    place = angle / (2 * math.pi) * DIRECTIONS
    lower = np.floor(place)
    upper_share = (strength * (place - lower))[..., None]
    directions = np.arange(DIRECTIONS)
    first = lower.astype(np.int64)[..., None] % DIRECTIONS == directions
    second = (lower.astype(np.int64)[..., None] + 1) % DIRECTIONS == directions
    return np.asarray(first * (strength[..., None] - upper_share) + second * upper_share)


def _side(pixels: int) -> int:
    side = math.isqrt(pixels)
    if side * side != pixels or side < _SMALLEST:
        raise ConfigError(
            f"data.features='gradient_histogram' takes square images of one channel, {_SMALLEST} x {_SMALLEST} or "
            f"larger, one numeric column a pixel, got {pixels} columns; use 'values' for other records"
        )
    return side


def _stride(side: int) -> int:
    return max(2, side // 8)


def _cells(side: int) -> int:
    """Cells of two strides, half overlapping, that fit along a side."""
    return (side - 2 * _stride(side)) // _stride(side) + 1
