"""Which engine computes the clipped sum: the model's own chain of operations, or Opacus' hooks where there is none.

Both give the same result (a test holds them to 1e-6 of each other); the log "qfed.privacy" says once for each kind of
model when it is the hooks, and why. A loss may have a method `slope(outputs (..., O), y (...)) -> (..., O)`, the
derivative of its records' losses in NumPy; otherwise autograd finds it, on the outputs alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from qfed.errors import ConfigError
from qfed.privacy.gradients import hooks
from qfed.privacy.gradients.chain import Array, Chain, Fill
from qfed.privacy.gradients.hooks import summed
from qfed.privacy.gradients.modules import Unknown
from qfed.privacy.gradients.trace import compile_chain

Loss = Callable[[Tensor, Tensor], Tensor]
_LOG = logging.getLogger("qfed.privacy")
_KEPT = 16


@dataclass(frozen=True)
class _Found:
    """Holds the model, so that its id stays its own."""

    model: nn.Module
    key: tuple[Any, ...]
    chain: Chain | None


_found: dict[int, _Found] = {}
_said: set[str] = set()


def check(model: nn.Module) -> None:
    """ConfigError for a model that cannot be trained with privacy; see `hooks.check`."""
    hooks.check(model)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError(f"model={type(model).__name__} has no parameter to train; set requires_grad on one")


def chain_for(model: nn.Module, shape: tuple[int, ...], dtype: torch.dtype) -> Chain | None:
    """The chain of a model for records of this shape, None where Opacus' hooks must do."""
    key = (shape, dtype, *[(id(p), p.requires_grad, p.shape, p.dtype) for p in model.parameters()])
    found = _found.get(id(model))
    if found is None or found.key != key:
        try:
            chain = compile_chain(model, shape, dtype)
        except Unknown as reason:
            chain = None
            said = f"per-record gradients of {type(model).__name__} come from Opacus' hooks, which is slower: {reason}"
            if said not in _said:
                _said.add(said)
                _LOG.info(said)
        found = _Found(model, key, chain)
        while len(_found) >= _KEPT:
            _found.pop(next(iter(_found)))
        _found[id(model)] = found
    return found.chain


def clipped_sum(model: nn.Module, loss: Loss, x: Tensor, y: Tensor, clip_norm: float) -> Tensor:
    """x (B, ...), y (B,), `loss` one value a record -> (P,) sum of the records' gradients, each of norm <= clip_norm.

    An empty batch gives zeros. Raises ConfigError for a trainable parameter that the output does not depend on, and
    ShapeError for a loss that does not give one value a record.
    """
    chain = chain_for(model, tuple(x.shape[1:]), x.dtype) if x.device.type == "cpu" else None
    if chain is None:
        return hooks.clipped_sum(model, loss, x, y, clip_norm)
    flat = flat_of(model)
    return torch.from_numpy(stacked_sum(chain, loss, flat, x.numpy()[None], y.numpy()[None], None, clip_norm)[0])


def stacked_sum(
    chain: Chain, loss: Loss, flat: Array, x: Array, y: Array, fill: Fill | None, clip_norm: float | None
) -> Array:
    """`clipped_sum` of K sites with weights of their own: flat (K, P), x (K, B, ...), y (K, B) -> (K, P).

    `fill` says what of (K, B) are records; without `clip_norm` gradients are summed as they are.
    """
    if not x.shape[1]:
        return np.zeros(flat.shape, flat.dtype)
    with np.errstate(all="ignore"):  # as torch: what is not finite is seen to where it counts
        out, tape = chain.forward(x, flat, fill)
        slope = _slope(loss, out, y)
        if fill is not None:
            slope *= fill.present.reshape(*fill.present.shape, *(1,) * (slope.ndim - 2))
        return chain.total(chain.backward(tape, slope), fill, clip_norm, len(flat))


def flat_of(model: nn.Module) -> Array:
    """A copy of the trainable parameters, (1, P)."""
    parts = [p.detach().numpy().reshape(-1) for p in model.parameters() if p.requires_grad]
    return np.concatenate(parts)[None]


def _slope(loss: Loss, out: Array, y: Array) -> Array:
    closed = getattr(loss, "slope", None)
    if closed is not None:
        found: Array = closed(out, y)
        return found
    # a view that autograd may write to
    leaf = torch.from_numpy(np.ascontiguousarray(out)).flatten(0, 1).requires_grad_()
    with torch.enable_grad():
        total = summed(loss, leaf, torch.from_numpy(np.ascontiguousarray(y)).flatten(0, 1))
        slope = torch.autograd.grad(total, leaf)[0]
    return slope.numpy().reshape(out.shape)
