"""The mean of the models after the last rounds: noise of single steps averages out, the way they went stays.

    w = 1/k sum_{r = R - k + 1}^{R} w_r,      k = averaging x R rounds, at least 1

Source: Polyak and Juditsky, SIAM J. Control and Optimization 30, 1992; for noisy private gradients, Bassily, Smith,
Thakurta, FOCS 2014. It looks at nothing but released models, so it costs no privacy.    Shapes  (P,) float64
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from qfed.config import TrainingConfig


def tail_mean(
    training: TrainingConfig, before: NDArray[np.float64] | None, model: NDArray[np.float32], round: int
) -> NDArray[np.float64]:
    """The mean so far after `round` (from 1) led to `model`; `before` is that of the round before."""
    first = training.rounds - max(1, math.floor(training.averaging * training.rounds + 0.5)) + 1
    if before is None or round <= first:
        return model.astype(np.float64)
    return before + (model - before) / (round - first + 1)
