"""How a record's loss changes along public directions: all that a zeroth-order step takes from it, clipped.

    d_i[k] = (l_i(w + h z_k) - l_i(w - h z_k)) / 2h,       s = sum_i clip(d_i, C)          k = 1 .. K

Source: Tang, Panda, Nasr, Mahloujifar, Mittal, arXiv 2401.04343 (DP-ZO). Departures: K directions a step, so a record's
K numbers are clipped together in L2; directions of signs (see directions.py). For a circuit on a device this takes two
circuits a record and direction, where a gradient by parameter shift takes two a parameter.
Clipping comes after the measurement, so a record counts at most C whatever the device answers: shots, noise, drift,
nonsense. What is not finite counts as zero.
The result is as private as a batch is: only a plan may release it, with noise and a charge.
Shapes  w (P,), z (K, P), x (B, ...), y (B,) -> s (K,)      Cost  2 K forward passes      Errors  ShapeError
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from qfed.errors import ShapeError
from qfed.privacy.directions import Directions, directions
from qfed.privacy.gradients import Loss
from qfed.privacy.rounds import Opened, Task
from qfed.privacy.steps import Sample, write

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Probe:
    """What every site asks of its records: `directions` K a step, `steps` a round, at a distance `smoothing` h."""

    directions: int
    smoothing: float
    steps: int = 1

    @property
    def size(self) -> int:
        """Numbers that a round releases."""
        return self.directions * self.steps

    def of(self, task: Task) -> Directions:
        """The directions of a task's round, (steps x K, P)."""
        return directions(task.run, task.round, self.size, len(task.weights))


def clipped_differences(
    model: nn.Module,
    loss: Loss,
    weights: Tensor,
    along: Directions,
    x: Tensor,
    y: Tensor,
    smoothing: float,
    clip_norm: float | None,
) -> Array:
    """s (K,) of the records x, y; without `clip_norm` the differences are summed as they are. `model` is scratch."""
    if not len(y):
        return np.zeros(len(along))
    columns = []
    for direction in torch.from_numpy(along * smoothing).to(weights):
        ahead, behind = (_losses(model, loss, weights + sign * direction, x, y) for sign in (1, -1))
        columns.append((ahead - behind) / (2 * smoothing))
    total: Array = clipped(np.stack(columns, axis=1), clip_norm).sum(axis=0)
    return total


def clipped(values: Array, clip_norm: float | None) -> Array:
    """Rows of (B, K), each of L2 norm at most C; what is not finite is 0."""
    with np.errstate(all="ignore"):
        finite = np.where(np.isfinite(values), values, 0.0)
        if clip_norm is None:
            return finite
        norms = np.linalg.norm(finite, axis=1, keepdims=True)  # infinite for what is far too large, which counts as 0
        scaled: Array = finite * np.minimum(1.0, clip_norm / (norms + 1e-12))
        return scaled


def sums_along(
    model: nn.Module, loss: Loss, sites: Sequence[Opened], *, sample: Sample, probe: Probe, clip_norm: float
) -> Array:
    """s of each site at its own weights, (sites, K), of the records that `sample` chooses among all of them."""
    chosen = sample()
    ends = np.searchsorted(chosen, np.cumsum([0, *(len(site.y) for site in sites)]))
    first, rows = 0, []
    for place, site in enumerate(sites):
        mine = torch.from_numpy(chosen[ends[place] : ends[place + 1]] - first)
        first += len(site.y)
        along = probe.of(site.task)
        x, y = site.x[mine], site.y[mine]
        rows.append(clipped_differences(model, loss, site.task.weights, along, x, y, probe.smoothing, clip_norm))
    return np.stack(rows)


@torch.no_grad()
def _losses(model: nn.Module, loss: Loss, weights: Tensor, x: Tensor, y: Tensor) -> Array:
    write(model, weights)
    found = loss(model(x), y)
    if found.shape != y.shape[:1]:
        raise ShapeError(f"a loss gives one value a record, ({len(y)},), got shape={tuple(found.shape)}")
    return np.asarray(found.double().numpy())
