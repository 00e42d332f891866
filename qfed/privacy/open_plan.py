"""Mode off: training without privacy, for comparison and debugging; no clipping, no noise, no ledger.

Sampling is seeded, as everything in an experiment. A ledger that is given all the same is refused: a private run was
meant.      Shapes, cost and errors  as plan.py
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from qfed.errors import LocalProtocolError
from qfed.privacy.gradients import Loss
from qfed.privacy.one_at_a_time import OneAtATime
from qfed.privacy.rounds import Opened, Receipt, Task, records, train_all
from qfed.privacy.steps import MakeOptimizer, train_sites


@dataclass(frozen=True)
class OpenPlan(OneAtATime):
    """Mode off: the same loop without clipping, noise and ledger, its sampling seeded."""

    local_steps: int
    sampling_rate: float
    batch_size: float

    @property
    def noise_multiplier(self) -> None:
        """None: no noise."""

    @property
    def delta(self) -> None:
        """None: no guarantee."""

    def epsilon(self, rounds: int) -> None:
        """None: no guarantee."""

    def describe(self) -> dict[str, str | float | None]:
        """See qfed.privacy.plan.Plan."""
        return {"mode": "off", "epsilon": None, "delta": None, "noise_multiplier": None, "clip_norm": None}

    def train_rounds(
        self, model: nn.Module, loss: Loss, tasks: Sequence[Task], *, optimizer: MakeOptimizer
    ) -> list[Receipt | Exception]:
        """See qfed.privacy.plan.Plan."""

        def train(sites: Sequence[Opened]) -> None:
            drawn = [(site.task.rng, len(site.y)) for site in sites if site.task.rng is not None]
            train_sites(
                model, loss, sites, optimizer=optimizer, steps=self.local_steps, clip_norm=None,
                sample=lambda: np.flatnonzero(np.concatenate([g.random(n) for g, n in drawn]) < self.sampling_rate),
                release=lambda total: total / self.batch_size,
            )  # fmt: skip

        return train_all(tasks, open=self._open, train=train, close=lambda _: Receipt(self.local_steps, None))

    def _open(self, task: Task) -> Opened:
        if task.ledger is not None:
            raise LocalProtocolError(
                'privacy.mode="off" charges no ledger, but one was given; was a private run meant?'
            )
        if task.rng is None:
            raise LocalProtocolError('privacy.mode="off" samples from a seeded generator, got rng=None; pass one')
        return Opened(task, *records(task.read))
