"""Mode site: what a whole site contributes is hidden, records, their number and their influence together.

    u_i = local_steps of SGD from the global model, minus it,   x_i = u_i min(1, C / ||u_i||_2)               (a site)
    v_i = encode(x_i) + share of the noise;     update = gamma sum_i v_i / survivors                  (the aggregator)

Source: McMahan, Ramage, Talwar, Zhang, ICLR 2018 (user-level DP-FedAvg), without sampling of sites and with weights of
one, since a weight would tell the number of records. The noise is shared as in shares.py and charged as T Gaussian
releases, to an account of its own (a guarantee for sites is not one for records). It pays from hundreds of sites on:
the noise in the mean falls with their number, and one site can change it no more than C.
Shapes  v (P,) int64      Cost  as mode off      Errors  as mode shared
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from qfed.privacy.accounting import Releases, accounted, epsilon_of
from qfed.privacy.accounts import account
from qfed.privacy.gradients import Loss
from qfed.privacy.ledger import Ledger
from qfed.privacy.noise import poisson_sample
from qfed.privacy.rounds import Opened, Read, Task, only, train_all
from qfed.privacy.shared_plan import Part, charged, settle
from qfed.privacy.shares import Shares, check_exactness
from qfed.privacy.steps import MakeOptimizer, flat, train_sites, write


@dataclass(frozen=True)
class SitePlan:
    """Mode site: trusts secure aggregation and `shares.honest` sites; unit: everything one site contributes."""

    local_steps: int
    batch_size: float
    sampling_rate: float
    rounds: int
    clip_norm: float
    delta: float
    shares: Shares

    @property
    def noise_multiplier(self) -> float:
        """sigma of the sum over n_min honest sites, in sensitivities."""
        return self.shares.noise_multiplier

    @property
    def per_round(self) -> Releases:
        """What one round releases: every site is in every round."""
        return Releases(1.0, self.noise_multiplier, 1)

    def epsilon(self, rounds: int) -> float:
        """What `rounds` rounds spend."""
        return epsilon_of([Releases(1.0, self.noise_multiplier, rounds)], accounted(self.delta))

    def alone(self, rounds: int) -> float:
        """What `rounds` rounds spend against somebody who sees a site's own shares, secure aggregation broken."""
        weaker = self.noise_multiplier / math.sqrt(self.shares.honest)
        return epsilon_of([Releases(1.0, weaker, rounds)], accounted(self.delta))

    def describe(self) -> dict[str, str | float | None]:
        """The mechanism in figures."""
        return {
            "mode": "site",
            "unit": "site",
            "adjacency": "zero-out",
            "epsilon": self.epsilon(self.rounds),
            "epsilon_alone": self.alone(self.rounds),
            "delta": self.delta,
            "noise_multiplier": self.noise_multiplier,
            "clip_norm": self.clip_norm,
            "sampling_rate": self.sampling_rate,
            "honest": self.shares.honest,
            "rounds": self.rounds,
            "steps": self.rounds * self.local_steps,
        }

    def release(
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
    ) -> Part:
        """This site's part v (P,) of one round from `model`, which stays as it is; charged before `read`."""
        start = flat(model)
        task = Task(start.clone(), read, ledger, dataset, run, round, None)
        try:
            return only(self.release_rounds(model, loss, [task], optimizer=optimizer))
        finally:
            write(model, start)

    def release_rounds(
        self, model: nn.Module, loss: Loss, tasks: Sequence[Task], *, optimizer: MakeOptimizer
    ) -> list[Part | Exception]:
        """`release` of many sites, each from its task's weights, which are trained; `model` is scratch."""
        starts = {id(task): task.weights.numpy().astype(np.float64) for task in tasks}

        def train(sites: Sequence[Opened]) -> None:
            count = sum(len(site.y) for site in sites)
            train_sites(
                model, loss, sites, optimizer=optimizer, steps=self.local_steps, clip_norm=None,
                sample=lambda: poisson_sample(count, self.sampling_rate), release=lambda total: total / self.batch_size,
            )  # fmt: skip

        def close(site: Opened) -> Part:
            moved = site.task.weights.numpy().astype(np.float64) - starts[id(site.task)]
            # A site whose training diverged must not say so: what is not finite counts as not moved.
            moved = np.nan_to_num(moved, nan=0.0, posinf=0.0, neginf=0.0)
            shorter = min(1.0, self.clip_norm / max(float(np.linalg.norm(moved)), 1e-300))
            part = self.shares.hide(moved * shorter, self.clip_norm)
            settle(site)
            return part

        return train_all(tasks, open=self._open, train=train, close=close)

    def _open(self, task: Task) -> Opened:
        check_exactness(self.shares, len(task.weights), self.rounds, self.epsilon(self.rounds), self.delta)
        return charged(task, account(task.dataset, "site"), self.per_round, self.rounds, repr(self))
