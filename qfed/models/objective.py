"""What is minimised for each record, and what is reported.

    classification   l = -log softmax(out)[y]      score: records whose largest logit is y
    regression       l = (out - y)^2               score: sum of squared errors, y in [-1, 1]

Losses stay one a record, since differential privacy clips one a record. Scores are sums and counts, so that those of
several sites add up.    Shapes  outputs (B, O), y (B,)    Errors ShapeError, ConfigError
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from qfed.errors import ConfigError, ShapeError

TASKS = ("classification", "regression")


def loss(task: str) -> Callable[[Tensor, Tensor], Tensor]:
    """(outputs (B, O), y (B,)) -> loss of each record (B,)."""
    _known(task)
    return _cross_entropy if task == "classification" else _squared_error


def score(task: str, outputs: Tensor | npt.NDArray[Any], y: Tensor | npt.NDArray[Any]) -> tuple[float, float]:
    """(numerator, denominator): correct records or summed squared errors, and records.

    A record whose logits are not all finite counts as wrong (argmax would name class 0, by chance often right).
    """
    _known(task)
    values, targets = (np.asarray(v.detach().cpu() if isinstance(v, Tensor) else v) for v in (outputs, y))
    _fit(task, values.shape, targets.shape)
    if task == "classification":
        right = np.isfinite(values).all(axis=1) & (values.argmax(axis=1) == targets)
        return float(np.count_nonzero(right)), float(len(targets))
    return float(np.sum((values[:, 0].astype(np.float64) - targets) ** 2)), float(len(targets))


def _cross_entropy(outputs: Tensor, y: Tensor) -> Tensor:
    _fit("classification", outputs.shape, y.shape)
    return torch.nn.functional.cross_entropy(outputs, y, reduction="none")


def _squared_error(outputs: Tensor, y: Tensor) -> Tensor:
    _fit("regression", outputs.shape, y.shape)
    return (outputs[:, 0] - y) ** 2


def _fit(task: str, outputs: tuple[int, ...], y: tuple[int, ...]) -> None:
    # (B, 1) - (B,) would broadcast to (B, B) without a word.
    width = outputs[1:] == (1,) if task == "regression" else len(outputs) == 2 and outputs[1] > 1
    if len(y) != 1 or outputs[:1] != y or not width:
        expected = "(B, classes)" if task == "classification" else "(B, 1)"
        raise ShapeError(f"{task} takes outputs {expected} and y (B,), got outputs {tuple(outputs)} and y {tuple(y)}")


def _known(task: str) -> None:
    if task not in TASKS:
        raise ConfigError(f"task={task!r}; expected one of {', '.join(TASKS)}")
