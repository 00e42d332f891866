"""One private mean gradient from a clipped sum.

    g = (s + N(0, (sigma C)^2 I)) / B,      s = sum_i clip(grad_i, C)

The noise is the operating system's, drawn in one piece for all parameters, added in double precision and rounded with
the sum. Only `plan` may use this module: it is what charges.      Shapes  s (..., P) -> g (..., P)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qfed.privacy.noise import gaussian


def noisy_mean(total: NDArray[Any], *, noise_multiplier: float, clip_norm: float, batch_size: float) -> NDArray[Any]:
    """`total` with noise of standard deviation sigma C in each coordinate, over the public B; overwritten."""
    noise = gaussian(total.size, noise_multiplier * clip_norm).reshape(total.shape)
    np.add(total, noise, out=total, casting="same_kind")
    total /= batch_size
    return total
