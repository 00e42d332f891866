"""Zeroth-order steps at a site alone (modes local and off): what leaves is how far it went along public directions.

    S ~ Poisson(q),   g = (sum_{i in S} clip(d_i, C) + N(0, (sigma C)^2 1)) / B         (d: see zeroth_order.py)
    v <- m v + g + mu c,   c <- c - lr v,   w = w_0 + sum_k c_k z_k                      `steps` of them a round

SGD with momentum m (and FedProx' mu), written in the coefficients c of the round's directions, since the model never
leaves what they span: a site's answer is steps x K numbers instead of P. A step is a release of the Gaussian mechanism
with sensitivity C on K numbers, charged as such before any record is read.
Shapes  c (steps x K,) float64      Cost  2 K forward passes of the sampled records a step
Errors  BudgetExhausted, PolicyRefused from the ledger and ConfigError for the model, before anything is read
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import nn

from qfed.config import RunConfig
from qfed.errors import LocalProtocolError
from qfed.privacy.accounting import Releases, epsilon_of
from qfed.privacy.clipping import noisy_mean
from qfed.privacy.gradients import Loss, check
from qfed.privacy.noise import poisson_sample
from qfed.privacy.rounds import Opened, Task, records, train_all
from qfed.privacy.steps import MakeOptimizer
from qfed.privacy.zeroth_order import Array, Probe, clipped_differences
from qfed.quantum.time_limit import part


@dataclass(frozen=True)
class ZerothPlan:
    """Modes local (with `noise_multiplier`, `clip_norm` and `delta`) and off (without the three)."""

    probe: Probe
    sampling_rate: float
    batch_size: float
    rounds: int
    learning_rate: float
    momentum: float
    proximal: float
    clip_norm: float | None
    noise_multiplier: float | None
    delta: float | None

    @classmethod
    def of(cls, config: RunConfig, probe: Probe, noise_multiplier: float | None) -> Self:
        """The plan of a configuration, with noise (mode local) or (None) without."""
        training, privacy, private = config.training, config.privacy, noise_multiplier is not None
        return cls(
            probe=probe,
            sampling_rate=training.sampling_rate,
            batch_size=training.batch_size,
            rounds=training.rounds,
            learning_rate=training.learning_rate,
            momentum=training.momentum,
            proximal=config.federation.proximal_mu if config.federation.strategy == "fedprox" else 0.0,
            clip_norm=privacy.clip_norm if private else None,
            noise_multiplier=noise_multiplier,
            delta=privacy.delta if private else None,
        )

    @property
    def local_steps(self) -> int:
        """See Plan."""
        return self.probe.steps

    def epsilon(self, rounds: int) -> float | None:
        """See Plan."""
        if self.noise_multiplier is None or self.delta is None:
            return None
        steps = rounds * self.probe.steps
        return epsilon_of([Releases(self.sampling_rate, self.noise_multiplier, steps)], self.delta)

    def describe(self) -> dict[str, str | float | None]:
        """See Plan."""
        return {
            "mode": "off" if self.noise_multiplier is None else "local",
            "unit": None if self.noise_multiplier is None else "record",
            "adjacency": None if self.noise_multiplier is None else "zero-out",
            "epsilon": self.epsilon(self.rounds),
            "delta": self.delta,
            "noise_multiplier": self.noise_multiplier,
            "clip_norm": self.clip_norm,
            "sampling_rate": self.sampling_rate,
            "batch_size": self.batch_size,
            "directions": self.probe.directions,
            "rounds": self.rounds,
            "steps": self.rounds * self.probe.steps,
        }

    def release_rounds(
        self, model: nn.Module, loss: Loss, tasks: Sequence[Task], *, optimizer: MakeOptimizer | None = None
    ) -> list[Array | Exception]:
        """Coefficients c of each site's round, from its task's weights, charged to its own ledger; `model` is scratch.

        The step is along the directions, so no `optimizer` is used.
        """
        check(model)
        moved: dict[int, Array] = {}

        def train(sites: Sequence[Opened]) -> None:
            for site in sites:
                moved[id(site)] = self._steps(model, loss, site)

        return train_all(tasks, open=self._open, train=train, close=lambda site: self._close(site, moved))

    def _steps(self, model: nn.Module, loss: Loss, site: Opened) -> Array:
        along = self.probe.of(site.task)
        start = site.task.weights
        coefficients, velocity = np.zeros(len(along)), np.zeros(len(along))
        for step in range(self.probe.steps):
            chosen = torch.from_numpy(self._sample(site))
            weights = start + torch.from_numpy(coefficients @ along).to(start)
            mine = slice(step * self.probe.directions, (step + 1) * self.probe.directions)
            x, y = site.x[chosen], site.y[chosen]
            smoothing, clip_norm = self.probe.smoothing, self.clip_norm
            with part("steps"):
                total = clipped_differences(model, loss, weights, along[mine], x, y, smoothing, clip_norm)
            gradient = self.proximal * coefficients
            gradient[mine] += self._released(total)
            velocity = self.momentum * velocity + gradient
            coefficients -= self.learning_rate * velocity
        return coefficients

    def _sample(self, site: Opened) -> np.ndarray:
        if self.noise_multiplier is not None:
            return poisson_sample(len(site.y), self.sampling_rate)
        if site.task.rng is None:
            raise LocalProtocolError('privacy.mode="off" samples from a seeded generator, got rng=None; pass one')
        return np.flatnonzero(site.task.rng.random(len(site.y)) < self.sampling_rate)

    def _released(self, total: Array) -> Array:
        if self.noise_multiplier is None or self.clip_norm is None:
            return total / self.batch_size
        return noisy_mean(
            total, noise_multiplier=self.noise_multiplier, clip_norm=self.clip_norm, batch_size=self.batch_size
        )

    def _open_unprotected(self, task: Task) -> Opened:
        if task.ledger is not None:
            raise LocalProtocolError(
                'privacy.mode="off" charges no ledger, but one was given; was a private run meant?'
            )
        return Opened(task, *records(task.read))

    def _open(self, task: Task) -> Array | Opened:
        if self.noise_multiplier is None:
            return self._open_unprotected(task)
        ledger, where = task.ledger, (task.dataset, task.run, task.round)
        if ledger is None:
            raise LocalProtocolError("a private round needs the ledger of its data set; none was given")
        request = hashlib.sha256(f"{self!r}".encode() + task.to_bytes()).digest()
        if (answer := ledger.replay(*where, request)) is not None:
            return np.frombuffer(answer, np.float64).copy()
        once = Releases(self.sampling_rate, self.noise_multiplier, self.probe.steps)
        held = ledger.reserve(*where, once, planned_rounds=self.rounds, request=request)
        return Opened(task, *records(task.read), held)

    def _close(self, site: Opened, moved: dict[int, Array]) -> Array:
        coefficients = moved.pop(id(site))
        if self.noise_multiplier is not None:
            if site.task.ledger is None or site.held is None:
                raise LocalProtocolError("a private round was trained without a charge")
            site.task.ledger.settle(site.held, self.probe.steps, coefficients.tobytes())
        return coefficients
