"""The one door to privacy noise: a plan couples sampler, clipper, noise, event and ledger; none goes without the rest.

One step (DP-SGD, Abadi et al., CCS 2016), `local_steps` of them a round:

    S ~ Poisson(q),   g = (sum_{i in S} clip(grad_i, C) + N(0, (sigma C)^2 I)) / B,   optimiser step with g

q, C, sigma and the denominator B (`training.batch_size`) come from the configuration, never from the number of records,
which B would otherwise tell. Per-sample gradients and clipping are Opacus'; its sampler (q = 1 / batches) and its noise
(torch's Mersenne Twister) are not used. The ledger is charged and synced to disk before `read` may open the records.

Shapes  x (N, F), y (N,)      Cost  one forward and backward of the sampled records a step
Errors  BudgetExhausted, PolicyRefused from the ledger, before anything is read
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn

from qfed.config import RunConfig
from qfed.errors import ConfigError, LocalProtocolError
from qfed.privacy.accounting import Releases, calibrate, epsilon_of
from qfed.privacy.ledger import Ledger
from qfed.privacy.noise import gaussian, poisson_sample

Loss = Callable[[Tensor, Tensor], Tensor]
Read = Callable[[], tuple[Tensor, Tensor]]
MakeOptimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


class Plan(Protocol):
    """How a site trains in every round of a run."""

    @property
    def noise_multiplier(self) -> float | None:
        """sigma, or None without privacy."""
        ...

    def epsilon(self, rounds: int) -> float | None:
        """What `rounds` rounds spend at the configuration's delta; None without privacy."""
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
        rng: np.random.Generator,
    ) -> None:
        """Train `model` in place for one round; `loss` gives one value a record, `rng` is for experiments only."""
        ...


def plan_for(config: RunConfig) -> Plan:
    """The plan of a configuration, its noise calibrated to the budget of the whole run (or checked against it)."""
    training, privacy = config.training, config.privacy
    if privacy.mode == "off":
        return OpenPlan(training.local_steps, training.sampling_rate, training.batch_size)
    steps = training.rounds * training.local_steps
    needed = calibrate(privacy.epsilon, privacy.delta, training.sampling_rate, steps)
    sigma = privacy.noise_multiplier if privacy.noise_multiplier is not None else needed
    if (spent := epsilon_of([Releases(training.sampling_rate, sigma, steps)], privacy.delta)) > privacy.epsilon:
        raise ConfigError(
            f"privacy.noise_multiplier={sigma:g} spends epsilon={spent:.3f} in {steps} steps, above privacy.epsilon="
            f"{privacy.epsilon:g}; use at least {math.ceil(needed * 1e4) / 1e4:g}, or leave noise_multiplier out"
        )
    return LocalPlan(
        local_steps=training.local_steps,
        sampling_rate=training.sampling_rate,
        batch_size=training.batch_size,
        rounds=training.rounds,
        clip_norm=privacy.clip_norm,
        noise_multiplier=sigma,
        delta=privacy.delta,
    )


@dataclass(frozen=True)
class OpenPlan:
    """Mode off: the same loop without clipping, noise and ledger, its sampling seeded."""

    local_steps: int
    sampling_rate: float
    batch_size: float

    @property
    def noise_multiplier(self) -> None:
        """None: no noise."""

    def epsilon(self, rounds: int) -> None:
        """None: no guarantee."""

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
        rng: np.random.Generator,
    ) -> None:
        """See Plan."""
        if ledger is not None:
            raise LocalProtocolError(
                'privacy.mode="off" charges no ledger, but one was given; was a private run meant?'
            )
        x, y = read()
        steps = optimizer(model.parameters())
        for _ in range(self.local_steps):
            chosen = torch.from_numpy(np.flatnonzero(rng.random(len(x)) < self.sampling_rate))
            steps.zero_grad()
            (loss(model(x[chosen]), y[chosen]).sum() / self.batch_size).backward()  # type: ignore[no-untyped-call]
            steps.step()


@dataclass(frozen=True)
class LocalPlan:
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
        rng: np.random.Generator,
    ) -> None:
        """See Plan."""
        if ledger is None:
            raise LocalProtocolError("a private round needs the ledger of its data set; none was given")
        start = b"".join(p.detach().cpu().numpy().tobytes() for p in model.parameters())
        request = hashlib.sha256(f"{self!r}".encode() + start).digest()
        reservation = ledger.reserve(dataset, run, round, self.per_round, planned_rounds=self.rounds, request=request)
        x, y = read()
        watched = GradSampleModule(model, loss_reduction="sum")
        try:
            inner = optimizer(watched.parameters())
            steps = _Optimizer(
                inner,
                noise_multiplier=self.noise_multiplier,
                max_grad_norm=self.clip_norm,
                expected_batch_size=self.batch_size,
            )
            for _ in range(self.local_steps):
                chosen = torch.from_numpy(poisson_sample(len(x), self.sampling_rate))
                steps.zero_grad()
                loss(watched(x[chosen].requires_grad_()), y[chosen]).sum().backward()  # type: ignore[no-untyped-call]
                steps.step()
        finally:
            watched.remove_hooks()
            for parameter in model.parameters():
                for mark in ("grad_sample", "summed_grad", "_forward_counter", "_current_grad_sample"):
                    if hasattr(parameter, mark):
                        delattr(parameter, mark)
                parameter.grad = None
        ledger.settle(reservation)


class _Optimizer(DPOptimizer):  # type: ignore[misc]
    """Opacus' clipping and scaling, with noise from the operating system's entropy."""

    def add_noise(self) -> None:
        """Put clipped sum plus noise of standard deviation sigma C into each gradient."""
        parameters: list[Any] = self.params
        sizes = [parameter.numel() for parameter in parameters]
        noise = torch.from_numpy(gaussian(sum(sizes), self.noise_multiplier * self.max_grad_norm))
        for parameter, piece in zip(parameters, torch.split(noise, sizes), strict=True):
            total = parameter.summed_grad
            parameter.grad = (total + piece.view_as(total).to(total)).view_as(parameter)
