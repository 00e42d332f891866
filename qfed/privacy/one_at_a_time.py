"""A plan that trains a site's own model: one round of one site, in place, is its round for many with one task.

Shapes, cost and errors  as plan.py
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from torch import nn

from qfed.privacy.gradients import Loss
from qfed.privacy.ledger import Ledger
from qfed.privacy.rounds import Read, Receipt, Task, only
from qfed.privacy.steps import MakeOptimizer, flat, write


class OneAtATime(ABC):
    """`train_round` by `train_rounds`."""

    @abstractmethod
    def train_rounds(
        self, model: nn.Module, loss: Loss, tasks: Sequence[Task], *, optimizer: MakeOptimizer
    ) -> list[Receipt | Exception]:
        """See qfed.privacy.plan.Plan."""

    def train_round(
        self,
        model: nn.Module,
        loss: Loss,
        read: Read,
        *,
        optimizer: MakeOptimizer,
        ledger: Ledger | None,
        dataset: str,
        run: str,
        round: int,
        rng: np.random.Generator | None,
    ) -> Receipt:
        """See qfed.privacy.plan.Plan."""
        task = Task(flat(model), read, ledger, dataset, run, round, rng)
        receipt = only(self.train_rounds(model, loss, [task], optimizer=optimizer))
        write(model, task.weights)
        return receipt
