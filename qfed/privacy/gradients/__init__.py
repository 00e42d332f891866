"""The clipped sum of per-record gradients, without noise: what every private release is made of.

    s = sum_i clip(grad_i, C),      clip(v, C) = v min(1, C / (||v||_2 + 1e-6))

`grad_i` is the gradient of record i's own loss with respect to all trainable parameters, in the order of
`model.parameters()`, one after the other. Coordinates that are not finite count as zero before the norm is taken.
The result is as private as a batch is: only `plan` may release it, with noise and a charge.
"""

from qfed.privacy.gradients.chain import Array, Chain, Fill
from qfed.privacy.gradients.door import Loss, chain_for, check, clipped_sum, stacked_sum

__all__ = ["Array", "Chain", "Fill", "Loss", "chain_for", "check", "clipped_sum", "stacked_sum"]
