"""Refuse raw `qml.qnn.TorchLayer` modules: under per-sample gradients they train on noise alone."""

from __future__ import annotations

import sys

from torch import nn

from qfed.errors import CircuitError


def refuse_torch_layer(module: nn.Module) -> None:
    """Raise CircuitError if `module` is or holds a `qml.qnn.TorchLayer`."""
    pennylane = sys.modules.get("pennylane.qnn.torch")  # not loaded: no such layer exists
    if pennylane is None:
        return
    for name, part in module.named_modules():
        if isinstance(part, pennylane.TorchLayer):
            raise CircuitError(
                f"module {name or type(part).__name__!r} is a qml.qnn.TorchLayer: its forward reads weights that "
                "torch.func and Opacus cannot swap, so its per-sample gradients are silently zero, its weights move "
                "by noise alone, and in ghost clipping its real gradient is never clipped. Build it as "
                "qfed.quantum.QuantumLayer(qnode, weight_shapes), which takes the same arguments"
            )
