"""A number and its place in its public range, both ways.

    x = 2 (f(v) - f(low)) / (f(high) - f(low)) - 1,    f = identity, or log(v + shift) for scale = "log"

Values outside the range are clipped to it.      Shapes  any      Units  v: the column's; x in [-1, 1]
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from qfed.config import NumericColumn

Numbers = npt.NDArray[np.float64]


def scaled(values: Numbers, column: NumericColumn) -> Numbers:
    """x of v."""
    inside = np.clip(values, column.low, column.high)
    if column.scale == "log":
        shift = _shift(column)
        low, high = math.log(column.low + shift), math.log(column.high + shift)
        inside = np.log(inside + shift)
    else:  # Halved before subtracting, so that no finite range overflows.
        low, high, inside = column.low / 2, column.high / 2, inside / 2
    return np.asarray(np.clip(2 * ((inside - low) / (high - low)) - 1, -1, 1))


def unscaled(x: Numbers, column: NumericColumn) -> Numbers:
    """v of x."""
    share = (np.clip(np.asarray(x, dtype=np.float64), -1, 1) + 1) / 2
    if column.scale == "log":
        shift = _shift(column)
        low, high = math.log(column.low + shift), math.log(column.high + shift)
        values = np.exp(low + share * (high - low)) - shift
    else:
        values = column.low * (1 - share) + column.high * share
    return np.asarray(np.clip(values, column.low, column.high))


def _shift(column: NumericColumn) -> float:
    return 0.0 if column.low > 0 else column.high / 50
