"""Canaries: records whose gradient is known exactly, and a model that gives each of them a coordinate of its own.

    out(x, e, f) = (inner(x), a . e, f),     loss = 50 C a . e  for a canary (f = 1),   the task's loss otherwise

so that the gradient of canary i is 50 C e_i in the m audit coordinates a and zero in the model, and that of any other
record is zero in a. Nothing else of the plan knows about it: sampler, clipper, noise and ledger are the ones that
train. What the plan hands to the optimiser is recorded, step by step; that is what an attacker who sees all releases
sees.

Shapes  x (N, F + m + 1), inner out (N, O) -> (N, O + 2); recorded (steps x sites, m), a step's sites together
Units   recorded in multiples of C
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

PULL = 50.0
"""A canary's raw gradient over the clip norm: far beyond it, so that a clipper that does not clip is plain to see."""

Loss = Callable[[Tensor, Tensor], Tensor]


class AuditModel(nn.Module):
    """A model with `canaries` audit coordinates beside it; all layers are ones that per-record engines know."""

    def __init__(self, inner: nn.Module, canaries: int) -> None:
        super().__init__()
        self.inner = inner
        self.coordinates = nn.Linear(canaries, 1, bias=False)
        nn.init.zeros_(self.coordinates.weight)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, F + m + 1) -> (N, O + 2)."""
        canaries = self.coordinates.in_features
        out: Tensor = self.inner(x[:, : -canaries - 1])
        return torch.cat([out, self.coordinates(x[:, -canaries - 1 : -1]), x[:, -1:]], dim=1)


def audit_loss(loss: Loss, clip_norm: float) -> Loss:
    """The task's loss for records, 50 C a_i for canary i; (N, O + 2), (N,) -> (N,)."""

    def each(outputs: Tensor, y: Tensor) -> Tensor:
        canary = outputs[:, -1] > 0.5
        return torch.where(canary, PULL * clip_norm * outputs[:, -2], loss(outputs[:, :-2], y))

    return each


def with_canaries(x: Tensor, y: Tensor, canaries: int, present: NDArray[np.intp]) -> tuple[Tensor, Tensor]:
    """Records (N, F) and the canaries `present` (k,) as records (N + k, F + m + 1)."""
    k = len(present)
    wide = torch.zeros(len(x) + k, x.shape[1] + canaries + 1, dtype=x.dtype)
    wide[: len(x), : x.shape[1]] = x
    wide[len(x) + torch.arange(k), x.shape[1] + torch.from_numpy(present)] = 1
    wide[len(x) :, -1] = 1
    return wide, torch.cat([y, torch.zeros(k, dtype=y.dtype)])


@dataclass
class Recorder:
    """Keeps what the plan hands to the optimiser of all sites on the audit coordinates, in multiples of C."""

    canaries: int
    sites: int
    batch_size: float
    clip_norm: float
    learning_rate: float
    releases: list[NDArray[np.float64]] = field(default_factory=list)

    def optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Plain SGD (what follows a release cannot take its privacy away) that is listened to."""
        each = list(parameters)
        steps = torch.optim.SGD(each, lr=self.learning_rate)

        def listen(*_: object) -> None:
            gradient = torch.cat([p.grad.reshape(self.sites, -1) for p in each if p.grad is not None], dim=1)
            seen = gradient[:, -self.canaries :].detach().double().numpy() * (self.batch_size / self.clip_norm)
            self.releases.extend(seen)

        steps.register_step_pre_hook(listen)
        return steps
