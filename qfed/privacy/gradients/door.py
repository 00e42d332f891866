"""Which engine computes the clipped sum."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from qfed.privacy.gradients import hooks

Loss = Callable[[Tensor, Tensor], Tensor]


def check(model: nn.Module) -> None:
    """ConfigError for a model that cannot be trained with privacy; see `hooks.check`."""
    hooks.check(model)


def clipped_sum(model: nn.Module, loss: Loss, x: Tensor, y: Tensor, clip_norm: float) -> Tensor:
    """x (B, ...), y (B,), `loss` one value a record -> (P,) sum of the records' gradients, each of norm <= clip_norm.

    An empty batch gives zeros. Raises ConfigError for a trainable parameter that the output does not depend on, and
    ShapeError for a loss that does not give one value a record.
    """
    return hooks.clipped_sum(model, loss, x, y, clip_norm)
