"""Per-record gradients by Opacus' hooks, for every module that Opacus knows.

The hooks are on the model during one call only. The loss is summed over records: a mean would make every gradient B
times too small before it is clipped.
Cost  a few milliseconds of Python a call, beside one forward and backward pass
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from opacus import GradSampleModule
from opacus.validators import ModuleValidator
from torch import Tensor, nn

from qfed.errors import ConfigError, ShapeError
from qfed.quantum.guard import refuse_torch_layer

Loss = Callable[[Tensor, Tensor], Tensor]
_MARKS = ("grad_sample", "summed_grad", "_forward_counter", "_current_grad_sample")


def check(model: nn.Module) -> None:
    """ConfigError for a model that mixes records (batch normalisation), keeps buffers or is not set to train.

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


def clipped_sum(model: nn.Module, loss: Loss, x: Tensor, y: Tensor, clip_norm: float) -> Tensor:
    """See `qfed.privacy.gradients.clipped_sum`."""
    samples = per_record(model, loss, x, y)
    # as Opacus: the norm over all parameters is the norm of the parameters' norms
    norms = torch.stack([torch.linalg.vector_norm(g, dim=1) for g in samples]).norm(dim=0)
    factors = (clip_norm / (norms + 1e-6)).clamp(max=1.0)
    return torch.cat([factors @ g for g in samples])


def plain_sum(model: nn.Module, loss: Loss, x: Tensor, y: Tensor) -> Tensor:
    """(P,) the gradient of the records' summed loss, by autograd; zero for parameters without effect."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with torch.enable_grad():
        total = summed(loss, model(x), y)
        found = torch.autograd.grad(total, trained, allow_unused=True)
    pairs = zip(trained, found, strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).reshape(-1) for p, g in pairs])


def per_record(model: nn.Module, loss: Loss, x: Tensor, y: Tensor) -> list[Tensor]:
    """Gradients (B, size) of each trainable parameter, finite."""
    _clean(model)
    watched = GradSampleModule(model, loss_reduction="sum")
    try:
        with torch.enable_grad():
            # an input that needs a gradient keeps torch from warning of the first layer's hook
            summed(loss, watched(x.detach().clone().requires_grad_()), y).backward()  # type: ignore[no-untyped-call]
        return [_finite(parameter, len(y)) for parameter in model.parameters() if parameter.requires_grad]
    finally:
        watched.remove_hooks()
        _clean(model)


def _clean(model: nn.Module) -> None:
    for parameter in model.parameters():
        for mark in _MARKS:
            if hasattr(parameter, mark):
                delattr(parameter, mark)
        parameter.grad = None


def _finite(parameter: nn.Parameter, batch: int) -> Tensor:
    sample = getattr(parameter, "grad_sample", None)
    if sample is None:
        raise unused(tuple(parameter.shape))
    return torch.nan_to_num(sample, 0.0, 0.0, 0.0).reshape(batch, parameter.numel())


def unused(shape: tuple[int, ...]) -> ConfigError:
    """A parameter that is trained and never used."""
    return ConfigError(
        f"a trainable parameter of shape {shape} got no gradient; use every parameter of the model in its output, or "
        "freeze it (requires_grad=False)"
    )


def summed(loss: Loss, outputs: Tensor, y: Tensor) -> Tensor:
    """The sum of the records' losses; a loss that was averaged already would be clipped as the wrong gradient."""
    losses = loss(outputs, y)
    if losses.shape != (len(y),):
        raise ShapeError(
            f"the loss gives one value a record, shape ({len(y)},), got {tuple(losses.shape)}; use reduction='none'"
        )
    return losses.sum()
