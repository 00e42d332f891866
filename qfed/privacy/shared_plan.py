"""Mode shared: one step a round on the sum of all sites' clipped gradients, with noise that no site adds alone.

    S_i ~ Poisson(q),   x_i = sum_{j in S_i} clip(grad_j, C),   v_i = encode(x_i) + share of the noise      (a site)
    g = gamma sum_i v_i / (survivors B)                                                            (the aggregator)

q, C, sigma and the denominator B (`training.batch_size`, for a typical site) come from the configuration, never from
the number of records. With secure aggregation and n_min honest sites, all that anybody sees is a sum with noise sigma:
the accuracy of one trusted party, without one. A step is the sampled Gaussian mechanism (shares.py says why, for
integers), so it is charged as such, with sigma, to the ledger of each site whose records it reads. One site's share
alone has noise sigma / sqrt(n_min): that is what is left if secure aggregation fails entirely (`alone`).

An answer is not kept in the ledger: before it is masked it has a share of the noise only. A round that is asked for
again is answered from what secure aggregation has sent, or refused.
With a `probe` the records' loss along public directions takes the place of their gradients (zeroth_order.py): x_i and v
have K coordinates instead of P, and everything else is the same.
Shapes  v (P,) or (K,) int64      Cost  one forward and backward of the sampled records
Errors  BudgetExhausted, PolicyRefused from the ledger and ConfigError for the model or ring, before anything is read
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from qfed.errors import LocalProtocolError
from qfed.privacy.accounting import Releases, accounted, epsilon_of
from qfed.privacy.gradients import Loss, check
from qfed.privacy.ledger import Ledger
from qfed.privacy.noise import poisson_sample
from qfed.privacy.rounds import Opened, Read, Task, only, records, train_all
from qfed.privacy.shares import Shares, check_exactness
from qfed.privacy.steps import MakeOptimizer, clipped_sums, flat, write
from qfed.privacy.zeroth_order import Probe, sums_along

Part = NDArray[np.int64]


@dataclass(frozen=True)
class SharedPlan:
    """Mode shared: trusts secure aggregation and `shares.honest` sites; unit: one record."""

    sampling_rate: float
    batch_size: float
    rounds: int
    clip_norm: float
    delta: float
    shares: Shares
    probe: Probe | None = None

    local_steps = 1

    @property
    def noise_multiplier(self) -> float:
        """sigma of the sum over n_min honest sites, in sensitivities."""
        return self.shares.noise_multiplier

    @property
    def per_round(self) -> Releases:
        """What one round releases."""
        return Releases(self.sampling_rate, self.noise_multiplier, 1)

    def epsilon(self, rounds: int) -> float:
        """What `rounds` rounds spend."""
        return epsilon_of([Releases(self.sampling_rate, self.noise_multiplier, rounds)], accounted(self.delta))

    def alone(self, rounds: int) -> float:
        """What `rounds` rounds spend against somebody who sees a site's own shares, secure aggregation broken."""
        weaker = self.noise_multiplier / math.sqrt(self.shares.honest)
        return epsilon_of([Releases(self.sampling_rate, weaker, rounds)], accounted(self.delta))

    def describe(self) -> dict[str, str | float | None]:
        """The mechanism in figures."""
        return {
            "mode": "shared",
            "unit": "record",
            "adjacency": "zero-out",
            "epsilon": self.epsilon(self.rounds),
            "epsilon_alone": self.alone(self.rounds),
            "delta": self.delta,
            "noise_multiplier": self.noise_multiplier,
            "clip_norm": self.clip_norm,
            "sampling_rate": self.sampling_rate,
            "batch_size": self.batch_size,
            "honest": self.shares.honest,
            "rounds": self.rounds,
            "steps": self.rounds,
        }

    def release(
        self,
        model: nn.Module,
        loss: Loss,
        read: Read,
        *,
        ledger: Ledger | None,
        dataset: str,
        run: str,
        round: int,
        optimizer: MakeOptimizer | None = None,
    ) -> Part:
        """This site's part v (P,) of one step at `model`, which stays as it is; charged before `read`.

        The step is the aggregator's, so no `optimizer` is used.
        """
        start = flat(model)
        task = Task(start.clone(), read, ledger, dataset, run, round, None)
        try:
            return only(self.release_rounds(model, loss, [task]))
        finally:
            write(model, start)

    def release_rounds(
        self, model: nn.Module, loss: Loss, tasks: Sequence[Task], *, optimizer: MakeOptimizer | None = None
    ) -> list[Part | Exception]:
        """`release` of many sites, each at its task's weights and charged to its own ledger; `model` is scratch."""
        check(model)
        sums: dict[int, NDArray[np.floating]] = {}

        def train(sites: Sequence[Opened]) -> None:
            count = sum(len(site.y) for site in sites)
            sample = lambda: poisson_sample(count, self.sampling_rate)  # noqa: E731
            found: NDArray[np.floating]
            if self.probe is None:
                found = clipped_sums(model, loss, sites, sample=sample, clip_norm=self.clip_norm)
            else:
                found = sums_along(model, loss, sites, sample=sample, probe=self.probe, clip_norm=self.clip_norm)
            sums.update((id(site), row) for site, row in zip(sites, found, strict=True))

        def close(site: Opened) -> Part:
            part = self.shares.hide(sums.pop(id(site)).astype(np.float64), self.clip_norm)
            settle(site)
            return part

        return train_all(tasks, open=self._open, train=train, close=close)

    def _open(self, task: Task) -> Opened:
        size = len(task.weights) if self.probe is None else self.probe.size
        check_exactness(self.shares, size, self.rounds, self.epsilon(self.rounds), self.delta)
        return charged(task, task.dataset, self.per_round, self.rounds, repr(self))


def charged(task: Task, name: str, releases: Releases, rounds: int, plan: str) -> Opened:
    """Charge one round to the account `name`, then open the records."""
    if task.ledger is None:
        raise LocalProtocolError("a private round needs the ledger of its data set; none was given")
    request = hashlib.sha256(plan.encode() + task.to_bytes()).digest()
    held = task.ledger.reserve(name, task.run, task.round, releases, planned_rounds=rounds, request=request)
    return Opened(task, *records(task.read), held)


def settle(site: Opened) -> None:
    """The round is over; its answer is not kept."""
    if site.task.ledger is None or site.held is None:
        raise LocalProtocolError("a private round was released without a charge")
    site.task.ledger.settle(site.held)
