"""One private mean gradient from a clipped sum.

    g = (s + N(0, (sigma C)^2 I)) / B,      s = sum_i clip(grad_i, C)

The noise is the operating system's, drawn in one piece for all parameters. Only `plan` may use this module: it is what
charges.      Shapes  s (..., P) -> g (..., P)
"""

from __future__ import annotations

import torch
from torch import Tensor

from qfed.privacy.noise import gaussian


def noisy_mean(total: Tensor, *, noise_multiplier: float, clip_norm: float, batch_size: float) -> Tensor:
    """`total` with noise of standard deviation sigma C in each coordinate, over the public denominator B."""
    noise = torch.from_numpy(gaussian(total.numel(), noise_multiplier * clip_norm)).view_as(total)
    return (total + noise.to(total)) / batch_size
