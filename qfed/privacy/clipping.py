"""Clipping and noise inside Opacus: per-record gradients in, one noisy mean gradient out.

    g = (sum_i clip(grad_i, C) + N(0, (sigma C)^2 I)) / B,      clip(v, C) = v min(1, C / (||v||_2 + 1e-6))

Opacus computes the per-record gradients, clips and divides; its noise (torch's Mersenne Twister) is replaced by the
operating system's. The loss must be summed over records: a mean would make every gradient B times too small before it
is clipped. A gradient that is not finite counts as zero in those coordinates: left alone, one such record would outgrow
C, and refusing it by an error would tell that it is there. Only `plan` may use this module: it is what charges.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer
from opacus.validators import ModuleValidator
from torch import nn

from qfed.errors import ConfigError
from qfed.privacy.noise import gaussian
from qfed.quantum.guard import refuse_torch_layer

_MARKS = ("grad_sample", "summed_grad", "_forward_counter", "_current_grad_sample")


@contextmanager
def per_record_gradients(model: nn.Module) -> Iterator[nn.Module]:
    """The model with Opacus' hooks on, for a summed loss; they are gone afterwards, with what they left behind.

    Raises ConfigError for a model that mixes records (batch normalisation), keeps buffers or is not set to train, and
    CircuitError for a raw `qml.qnn.TorchLayer`, which would move by noise alone.
    """
    refuse_torch_layer(model)
    errors: list[Exception] = list(ModuleValidator.validate(model, strict=False))
    if not errors:
        errors = list(GradSampleModule.validate(model, strict=False))
    if errors:
        raise ConfigError(
            f"training with privacy needs a model whose records do not mix, in training mode, got "
            f"model={type(model).__name__}: {str(errors[0]).split('. ')[0]}; use layers without buffers or batch "
            "statistics (GroupNorm or LayerNorm instead of BatchNorm), and model.train()"
        )
    watched = GradSampleModule(model, loss_reduction="sum")
    try:
        yield watched
    finally:
        watched.remove_hooks()
        for parameter in model.parameters():
            for mark in _MARKS:
                if hasattr(parameter, mark):
                    delattr(parameter, mark)
            parameter.grad = None


class NoisyOptimizer(DPOptimizer):  # type: ignore[misc]
    """Opacus' clipping and scaling, with noise from the operating system's entropy."""

    def pre_step(self, closure: Callable[[], float] | None = None) -> bool | None:
        """Make each record's gradient finite; then clip it over all parameters together, sum, add noise, divide."""
        for parameter in self.params:
            if parameter.grad_sample is None:
                raise ConfigError(
                    f"a trainable parameter of shape {tuple(parameter.shape)} got no gradient; use every parameter of "
                    "the model in its output, or freeze it (requires_grad=False)"
                )
            parameter.grad_sample = torch.nan_to_num(self._get_flat_grad_sample(parameter), 0.0, 0.0, 0.0)
        done: bool | None = super().pre_step(closure)
        return done

    def add_noise(self) -> None:
        """Put clipped sum plus noise of standard deviation sigma C into each gradient."""
        parameters: list[Any] = self.params
        sizes = [parameter.numel() for parameter in parameters]
        noise = torch.from_numpy(gaussian(sum(sizes), self.noise_multiplier * self.max_grad_norm))
        for parameter, piece in zip(parameters, torch.split(noise, sizes), strict=True):
            total = parameter.summed_grad
            parameter.grad = (total + piece.view_as(total).to(total)).view_as(parameter)
