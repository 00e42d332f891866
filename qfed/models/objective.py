"""What is minimised for each record, and what is reported.

    classification   l = -log softmax(out)[y]      score: records whose largest logit is y
    regression       l = (out - y)^2               score: sum of squared errors, y in [-1, 1]

Losses stay one a record, since differential privacy clips one a record. Scores are sums and counts, so that those of
several sites add up.    Shapes  outputs (B, O), y (B,)    Errors ShapeError, ConfigError
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from qfed.errors import ConfigError, ShapeError

TASKS = ("classification", "regression")


class Loss(Protocol):
    """Loss of each record, and its derivative with respect to the outputs."""

    def __call__(self, outputs: Tensor, y: Tensor) -> Tensor:
        """outputs (B, O), y (B,) -> (B,)."""
        ...

    def slope(self, outputs: npt.NDArray[Any], y: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """outputs (..., B, O), y (..., B) -> dl/doutputs (..., B, O), what autograd gives of the sum."""
        ...


def loss(task: str) -> Loss:
    """The loss of a task."""
    _known(task)
    return _CrossEntropy() if task == "classification" else _SquaredError()


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


@dataclass(frozen=True)
class _CrossEntropy:
    def __call__(self, outputs: Tensor, y: Tensor) -> Tensor:
        _fit("classification", outputs.shape, y.shape)
        return torch.nn.functional.cross_entropy(outputs, y, reduction="none")

    def slope(self, outputs: npt.NDArray[Any], y: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """softmax(outputs) - onehot(y)."""
        _fit("classification", outputs.shape[-2:], y.shape[-1:])
        classes = outputs.shape[-1]
        if y.size and (np.minimum.reduce(y, None) < 0 or np.maximum.reduce(y, None) >= classes):
            raise ShapeError(f"classification takes y from 0 to {classes - 1}, got {y.min()} to {y.max()}")
        # a row a class, since reductions over a short last axis are slow, and NumPy's methods max and sum as well
        rows = outputs.reshape(y.size, classes).T.copy()
        rows -= np.maximum.reduce(rows, 0)
        np.exp(rows, out=rows)
        rows /= np.add.reduce(rows, 0)
        rows -= np.arange(classes)[:, None] == y.reshape(-1)
        return np.ascontiguousarray(rows.T).reshape(outputs.shape)


@dataclass(frozen=True)
class _SquaredError:
    def __call__(self, outputs: Tensor, y: Tensor) -> Tensor:
        _fit("regression", outputs.shape, y.shape)
        return (outputs[:, 0] - y) ** 2

    def slope(self, outputs: npt.NDArray[Any], y: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """2 (outputs - y)."""
        _fit("regression", outputs.shape[-2:], y.shape[-1:])
        found: npt.NDArray[Any] = 2 * (outputs - y[..., None])
        return found


def _fit(task: str, outputs: tuple[int, ...], y: tuple[int, ...]) -> None:
    # (B, 1) - (B,) would broadcast to (B, B) without a word.
    width = outputs[1:] == (1,) if task == "regression" else len(outputs) == 2 and outputs[1] > 1
    if len(y) != 1 or outputs[:1] != y or not width:
        expected = "(B, classes)" if task == "classification" else "(B, 1)"
        raise ShapeError(f"{task} takes outputs {expected} and y (B,), got outputs {tuple(outputs)} and y {tuple(y)}")


def _known(task: str) -> None:
    if task not in TASKS:
        raise ConfigError(f"task={task!r}; expected one of {', '.join(TASKS)}")
