"""Opacus: how per-sample gradients and their norms of a QuantumLayer are computed.

    g_b = dL_b/dw = A_w^T . dL_b/dangles        hooks mode: g_b;   ghost mode: ||g_b||

Opacus finds a layer's sampler by its class. Registering must not import Opacus (it takes seconds, and a site
without DP never needs it), so a layer registers itself when it is built or called and Opacus is loaded. A layer
that Opacus wrapped before it was ever registered is handled by Opacus' functorch path, with equal results.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor


def register_with_opacus(layer_class: type[Any]) -> None:
    """Make the samplers of `layer_class` known to Opacus, if Opacus is loaded."""
    opacus = sys.modules.get("opacus.grad_sample.grad_sample_module_fast_gradient_clipping")
    hooks = getattr(opacus, "GradSampleHooks", None)
    ghost = getattr(opacus, "GradSampleHooksFastGradientClipping", None)
    if hooks is None or ghost is None or layer_class in hooks.GRAD_SAMPLERS:
        return
    hooks.GRAD_SAMPLERS[layer_class] = grad_sample
    ghost.GRAD_SAMPLERS[layer_class] = grad_sample
    ghost.NORM_SAMPLERS[layer_class] = norm_sample


def grad_sample(layer: Any, activations: list[Tensor], backprops: Tensor) -> dict[Any, Tensor]:
    """Per-sample gradients (B, *shape) of each trainable weight, B the first dimension of the layer's input.

    Where a record has several rows (input (B, T, D)), its gradient is the sum over them.
    """
    x = layer.checked(activations[0])
    batch = x.shape[0]
    flat = x.flatten(0, -2) if x.dim() > 1 else x.unsqueeze(0)
    runner = layer.runner(flat.shape[-1])
    cotangent = runner.layout(flat.shape[-1]).rows(backprops).to(flat)
    gradients = runner.weight_gradients(flat, layer.flat_weights(flat).detach(), cotangent)
    if flat.shape[0] != batch:
        gradients = gradients.reshape(batch, *x.shape[1:-1], -1).flatten(1, -2).sum(1)
    weights = {name: getattr(layer, name) for name in layer.weight_shapes}
    by_name = layer.split_records(gradients)
    return {w: by_name[name].to(w) for name, w in weights.items() if w.requires_grad}


def norm_sample(layer: Any, activations: list[Tensor], backprops: Tensor) -> dict[Any, Tensor]:
    """Norms (B,) of the per-sample gradients of each trainable weight."""
    samples = grad_sample(layer, activations, backprops)
    return {w: torch.linalg.vector_norm(g.unsqueeze(-1).flatten(1), dim=1) for w, g in samples.items()}
