"""The one door to privacy noise: a plan couples sampler, clipper, noise, event and ledger; none goes without the rest.

One step (DP-SGD, Abadi et al., CCS 2016), `local_steps` of them a round:

    S ~ Poisson(q),   g = (sum_{i in S} clip(grad_i, C) + N(0, (sigma C)^2 I)) / B,   optimiser step with g

q, C, sigma and the denominator B (`training.batch_size`) come from the configuration, never from the number of records,
which B would otherwise tell. Per-record gradients and clipping follow Opacus' definitions (qfed.privacy.gradients); its
sampler (q = 1 / batches), its optimiser and its noise are not used. The ledger is charged and synced to disk before
`read` may open the records; a round that is asked for a second time gives the model of the first time, without reading
anything.

Shapes  x (N, F), y (N,)      Cost  one forward and backward of the sampled records a step
Errors  BudgetExhausted, PolicyRefused from the ledger and ConfigError for the model, before anything is read
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import nn

from qfed.config import PrivacyConfig, RunConfig
from qfed.errors import ConfigError, LocalProtocolError
from qfed.privacy.accounting import Releases, accounted, calibrate, epsilon_of
from qfed.privacy.clipping import noisy_mean
from qfed.privacy.counts_plan import CountsPlan
from qfed.privacy.gradients import Array, Loss, check
from qfed.privacy.ledger import Ledger
from qfed.privacy.metrics_plan import MetricsPlan
from qfed.privacy.moments import Moments
from qfed.privacy.noise import poisson_sample
from qfed.privacy.one_at_a_time import OneAtATime
from qfed.privacy.open_plan import OpenPlan
from qfed.privacy.rounds import Opened, Read, Receipt, Task, records, train_all
from qfed.privacy.shared_plan import SharedPlan
from qfed.privacy.shares import Shares
from qfed.privacy.site_plan import SitePlan
from qfed.privacy.steps import MakeOptimizer, train_sites
from qfed.privacy.zeroth_order import Probe
from qfed.privacy.zeroth_plan import ZerothPlan

__all__ = [
    "AnyPlan",
    "CountsPlan",
    "LocalPlan",
    "MetricsPlan",
    "OpenPlan",
    "Plan",
    "Receipt",
    "SharedPlan",
    "SitePlan",
    "Task",
    "ZerothPlan",
    "counts_plan_for",
    "metrics_plan_for",
    "plan_for",
]


class Plan(Protocol):
    """How a site trains its own model in every round of a run (modes local and off).

    SharedPlan and SitePlan are like it, but release a part of a sum (`release_rounds`) where this trains.
    """

    @property
    def noise_multiplier(self) -> float | None:
        """sigma, or None without privacy."""
        ...

    @property
    def delta(self) -> float | None:
        """Failure probability of the guarantee, or None without privacy."""
        ...

    @property
    def local_steps(self) -> int:
        """Optimiser steps of a round."""
        ...

    def epsilon(self, rounds: int) -> float | None:
        """What `rounds` rounds spend at the configuration's delta; None without privacy."""
        ...

    def describe(self) -> dict[str, str | float | None]:
        """The mechanism in figures, for a privacy statement."""
        ...

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
        """Train `model` in place for one round; `loss` gives one value a record (B,), `rng` is for experiments only."""
        ...

    def train_rounds(
        self, model: nn.Module, loss: Loss, tasks: Sequence[Task], *, optimizer: MakeOptimizer
    ) -> list[Receipt | Exception]:
        """`train_round` of many sites, each from its task's weights and in its ledger; `model` is scratch."""
        ...


def plan_for(config: RunConfig) -> AnyPlan:
    """The plan of a configuration, its noise calibrated to the budget of the whole run (or checked against it).

    Raises ConfigError when no noise is enough for the budget, or the given `noise_multiplier` is not.
    """
    training, privacy = config.training, config.privacy
    probe = None
    if training.method == "dp_zo":
        probe = Probe(training.directions, training.smoothing, training.local_steps)
        if privacy.mode in ("local", "off"):
            steps, private = training.rounds * training.local_steps, privacy.mode == "local"
            sigma = _sigma(privacy, training.sampling_rate, steps, privacy.delta) if private else None
            return ZerothPlan.of(config, probe, sigma)
    if privacy.mode == "off":
        return OpenPlan(training.local_steps, training.sampling_rate, training.batch_size)
    if privacy.mode == "local":
        steps = training.rounds * training.local_steps
        return LocalPlan(
            local_steps=training.local_steps,
            sampling_rate=training.sampling_rate,
            batch_size=training.batch_size,
            rounds=training.rounds,
            clip_norm=privacy.clip_norm,
            noise_multiplier=_sigma(privacy, training.sampling_rate, steps, privacy.delta),
            delta=privacy.delta,
        )
    rate = training.sampling_rate if privacy.mode == "shared" else 1.0
    sigma = _sigma(privacy, rate, training.rounds, accounted(privacy.delta))
    shares = Shares(sigma, config.honest, config.federation.sites, config.secagg.ring_bits)
    if privacy.mode == "shared":
        return SharedPlan(rate, training.batch_size, training.rounds, privacy.clip_norm, privacy.delta, shares, probe)
    return SitePlan(
        training.local_steps, training.batch_size, training.sampling_rate, training.rounds, privacy.clip_norm,
        privacy.delta, shares,
    )  # fmt: skip


def metrics_plan_for(config: RunConfig) -> MetricsPlan | None:
    """How evaluation results are noised, or None when they leave a site only masked."""
    privacy = config.privacy
    if not privacy.private_metrics:
        return None
    honest = config.honest if privacy.shares_noise else 1
    sigma = calibrate(privacy.epsilon, accounted(privacy.delta), 1.0, 1)
    return MetricsPlan(
        privacy.unit, privacy.delta, Shares(sigma, honest, config.federation.sites, config.secagg.ring_bits)
    )


def counts_plan_for(config: RunConfig, moments: Moments) -> CountsPlan:
    """How pair counts of a run of kind "synthesize" are released; errors as for `plan_for`."""
    privacy = config.privacy
    if privacy.mode not in ("shared", "local", "off"):
        raise ConfigError(f'pair counts are released in mode shared or local, got privacy.mode="{privacy.mode}"')
    if privacy.mode == "off":
        return CountsPlan("off", privacy.delta, moments, None)
    sigma = _sigma(privacy, 1.0, 1, accounted(privacy.delta))
    honest = config.honest if privacy.shares_noise else 1
    return CountsPlan(
        privacy.mode, privacy.delta, moments, Shares(sigma, honest, config.federation.sites, config.secagg.ring_bits)
    )


def _sigma(privacy: PrivacyConfig, rate: float, steps: int, delta: float) -> float:
    sigma = privacy.noise_multiplier
    if sigma is None:
        return calibrate(privacy.epsilon, delta, rate, steps)
    if (spent := epsilon_of([Releases(rate, sigma, steps)], delta)) > privacy.epsilon:
        needed = calibrate(privacy.epsilon, delta, rate, steps)
        raise ConfigError(
            f"privacy.noise_multiplier={sigma:g} spends epsilon={spent:.3f} in {steps} steps, above privacy.epsilon="
            f"{privacy.epsilon:g}; use at least {math.ceil(needed * 1e4) / 1e4:g}, or leave noise_multiplier out"
        )
    return sigma


@dataclass(frozen=True)
class LocalPlan(OneAtATime):
    """Mode local: DP-SGD at the site; trusts nobody."""

    local_steps: int
    sampling_rate: float
    batch_size: float
    rounds: int
    clip_norm: float
    noise_multiplier: float
    delta: float

    @property
    def per_round(self) -> Releases:
        """What one round releases."""
        return Releases(self.sampling_rate, self.noise_multiplier, self.local_steps)

    def epsilon(self, rounds: int) -> float:
        """See Plan."""
        return epsilon_of([Releases(self.sampling_rate, self.noise_multiplier, rounds * self.local_steps)], self.delta)

    def describe(self) -> dict[str, str | float | None]:
        """See Plan."""
        return {
            "mode": "local",
            "unit": "record",
            "adjacency": "zero-out",
            "epsilon": self.epsilon(self.rounds),
            "delta": self.delta,
            "noise_multiplier": self.noise_multiplier,
            "clip_norm": self.clip_norm,
            "sampling_rate": self.sampling_rate,
            "batch_size": self.batch_size,
            "rounds": self.rounds,
            "steps": self.rounds * self.local_steps,
        }

    def train_rounds(
        self, model: nn.Module, loss: Loss, tasks: Sequence[Task], *, optimizer: MakeOptimizer
    ) -> list[Receipt | Exception]:
        """See Plan."""
        check(model)
        frozen = b"".join(p.detach().cpu().numpy().tobytes() for p in model.parameters() if not p.requires_grad)

        def train(sites: Sequence[Opened]) -> None:
            count = sum(len(site.y) for site in sites)
            train_sites(
                model, loss, sites, optimizer=optimizer, steps=self.local_steps, clip_norm=self.clip_norm,
                sample=lambda: poisson_sample(count, self.sampling_rate), release=self._release,
            )  # fmt: skip

        return train_all(tasks, open=lambda task: self._open(task, frozen), train=train, close=self._close)

    def _open(self, task: Task, frozen: bytes) -> Receipt | Opened:
        ledger, where = task.ledger, (task.dataset, task.run, task.round)
        if ledger is None:
            raise LocalProtocolError("a private round needs the ledger of its data set; none was given")
        request = hashlib.sha256(f"{self!r}".encode() + task.to_bytes() + frozen).digest()
        if (answer := ledger.replay(*where, request)) is not None:
            task.from_bytes(answer)
            return Receipt(self.local_steps, ledger.spent(task.dataset), replayed=True)
        held = ledger.reserve(*where, self.per_round, planned_rounds=self.rounds, request=request)
        return Opened(task, *records(task.read), held)

    def _release(self, total: Array) -> Array:
        return noisy_mean(
            total, noise_multiplier=self.noise_multiplier, clip_norm=self.clip_norm, batch_size=self.batch_size
        )

    def _close(self, site: Opened) -> Receipt:
        ledger, held = site.task.ledger, site.held
        if ledger is None or held is None:
            raise LocalProtocolError("a private round was trained without a charge")
        ledger.settle(held, self.local_steps, site.task.to_bytes())
        return Receipt(self.local_steps, ledger.spent(site.task.dataset))


AnyPlan = LocalPlan | OpenPlan | SharedPlan | SitePlan | ZerothPlan
