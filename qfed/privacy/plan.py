"""The one door to privacy noise: a plan couples sampler, clipper, noise, event and ledger; none goes without the rest.

One step (DP-SGD, Abadi et al., CCS 2016), `local_steps` of them a round:

    S ~ Poisson(q),   g = (sum_{i in S} clip(grad_i, C) + N(0, (sigma C)^2 I)) / B,   optimiser step with g

q, C, sigma and the denominator B (`training.batch_size`) come from the configuration, never from the number of records,
which B would otherwise tell. Per-record gradients and clipping are Opacus'; its sampler (q = 1 / batches) and its noise
are not used. The ledger is charged and synced to disk before `read` may open the records; a round that is asked for a
second time gives the model of the first time, without reading anything.

Shapes  x (N, F), y (N,)      Cost  one forward and backward of the sampled records a step
Errors  BudgetExhausted, PolicyRefused from the ledger and ConfigError for the model, before anything is read
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from qfed.config import RunConfig
from qfed.errors import ConfigError, LocalProtocolError, ShapeError
from qfed.privacy.accounting import Releases, calibrate, epsilon_of
from qfed.privacy.clipping import noisy_mean
from qfed.privacy.gradients import check, clipped_sum, summed
from qfed.privacy.ledger import Ledger
from qfed.privacy.noise import poisson_sample

Loss = Callable[[Tensor, Tensor], Tensor]
Read = Callable[[], tuple[Tensor, Tensor]]
MakeOptimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


@dataclass(frozen=True)
class Receipt:
    """What a round took."""

    steps: int
    epsilon: float | None
    """Spent by the data set in all, after this round; None without privacy."""
    replayed: bool = False
    """The round was over before: the model is that of the first time, nothing was read or charged."""


class Plan(Protocol):
    """How a site trains in every round of a run."""

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


def plan_for(config: RunConfig) -> Plan:
    """The plan of a configuration, its noise calibrated to the budget of the whole run (or checked against it).

    Raises ConfigError when no noise is enough for the budget, or the given `noise_multiplier` is not.
    """
    training, privacy = config.training, config.privacy
    if privacy.mode == "off":
        return OpenPlan(training.local_steps, training.sampling_rate, training.batch_size)
    steps = training.rounds * training.local_steps
    sigma = privacy.noise_multiplier
    if sigma is None:
        sigma = calibrate(privacy.epsilon, privacy.delta, training.sampling_rate, steps)
    elif (spent := epsilon_of([Releases(training.sampling_rate, sigma, steps)], privacy.delta)) > privacy.epsilon:
        needed = calibrate(privacy.epsilon, privacy.delta, training.sampling_rate, steps)
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

    @property
    def delta(self) -> None:
        """None: no guarantee."""

    def epsilon(self, rounds: int) -> None:
        """None: no guarantee."""

    def describe(self) -> dict[str, str | float | None]:
        """See Plan."""
        return {"mode": "off", "epsilon": None, "delta": None, "noise_multiplier": None, "clip_norm": None}

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
        """See Plan."""
        if ledger is not None:
            raise LocalProtocolError(
                'privacy.mode="off" charges no ledger, but one was given; was a private run meant?'
            )
        if rng is None:
            raise LocalProtocolError('privacy.mode="off" samples from a seeded generator, got rng=None; pass one')
        x, y = _records(read)
        steps = optimizer(model.parameters())
        for _ in range(self.local_steps):
            chosen = torch.from_numpy(np.flatnonzero(rng.random(len(x)) < self.sampling_rate))
            steps.zero_grad()
            (summed(loss, model(x[chosen]), y[chosen]) / self.batch_size).backward()  # type: ignore[no-untyped-call]
            steps.step()
        return Receipt(self.local_steps, None)


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
        """See Plan."""
        if ledger is None:
            raise LocalProtocolError("a private round needs the ledger of its data set; none was given")
        request = hashlib.sha256(f"{self!r}".encode() + _to_bytes(model)).digest()
        if (answer := ledger.replay(dataset, run, round, request)) is not None:
            _from_bytes(model, answer)
            return Receipt(self.local_steps, ledger.spent(dataset), replayed=True)
        check(model)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        steps = optimizer(trained)
        reservation = ledger.reserve(dataset, run, round, self.per_round, planned_rounds=self.rounds, request=request)
        x, y = _records(read)
        for _ in range(self.local_steps):
            chosen = torch.from_numpy(poisson_sample(len(x), self.sampling_rate))
            total = clipped_sum(model, loss, x[chosen], y[chosen], self.clip_norm)
            mean = noisy_mean(
                total,
                noise_multiplier=self.noise_multiplier,
                clip_norm=self.clip_norm,
                batch_size=self.batch_size,
            )
            for parameter, piece in zip(trained, torch.split(mean, [p.numel() for p in trained]), strict=True):
                parameter.grad = piece.view_as(parameter)
            steps.step()
        for parameter in trained:
            parameter.grad = None
        ledger.settle(reservation, self.local_steps, _to_bytes(model))
        return Receipt(self.local_steps, ledger.spent(dataset))


def _records(read: Read) -> tuple[Tensor, Tensor]:
    x, y = read()
    if not x.is_floating_point() or x.ndim < 2 or len(x) != len(y):
        raise ShapeError(
            f"a round trains on x (N, F) of floats and y with N rows, got x={tuple(x.shape)} of {x.dtype} and "
            f"y={tuple(y.shape)}; check what the site reads"
        )
    return x, y


def _to_bytes(model: nn.Module) -> bytes:
    return b"".join(parameter.detach().cpu().numpy().tobytes() for parameter in model.parameters())


def _from_bytes(model: nn.Module, body: bytes) -> None:
    place = 0
    with torch.no_grad():
        for parameter in model.parameters():
            size = parameter.numel() * parameter.element_size()
            piece = bytearray(body[place : place + size])
            parameter.copy_(torch.frombuffer(piece, dtype=parameter.dtype).view(parameter.shape))
            place += size
