"""Parameters as one flat vector, in the order of `named_parameters`, and back.

Shapes  vector (P,) float32      Errors ShapeError when the size is another
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from qfed.errors import ShapeError

Vector = npt.NDArray[np.float32]


def flatten(model: nn.Module) -> Vector:
    """A copy of all trainable parameters, (P,) float32."""
    parts = [parameter.detach().cpu().numpy().ravel() for parameter in trainable(model).values()]
    return np.concatenate([*parts, np.empty(0)]).astype(np.float32)


@torch.no_grad()
def unflatten(model: nn.Module, vector: npt.NDArray[Any]) -> None:
    """Write `vector` (P,) into the model's parameters, in place."""
    parameters = trainable(model)
    size = sum(parameter.numel() for parameter in parameters.values())
    if vector.shape != (size,):
        raise ShapeError(f"the model has {size} parameters, got a vector of shape {vector.shape}; was it built alike?")
    start = 0
    for parameter in parameters.values():
        piece = np.array(vector[start : start + parameter.numel()], dtype=np.float32)
        parameter.copy_(torch.from_numpy(piece).view_as(parameter))
        start += parameter.numel()


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that are trained, by name, in the order of the flat vector."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
