"""Restricted Boltzmann machine: hidden units, trained on the records themselves. LOCAL AND WITHOUT PRIVACY.

    p(v, h) ~ exp(-a.v - b.h - v' W h),      v in {-1, 1}^n coded bits (the target's too),  h in {-1, 1}^m

    dL/dW = <v h>_records - <v h>_model,     <h_j | v>_records = -tanh(b_j + sum_i v_i W_ij)

Hidden units see more than pairs, so pair counts cannot train them: every step reads records. No mechanism here bounds
what one record does to W, hence no guarantee: it is refused without --no-privacy, its statement says "none", and there
is no federated way to it (a private one would be DP-SGD with a mechanism and a ledger of its own). The model's moments
come from the same annealers as in boltzmann.py, over v and h together.
Source: Smolensky 1986; Hinton, Neural Computation 14, 1771 (2002). Departure: annealed samples in place of contrastive
divergence. Shapes  W (n, m)      Cost  steps x one draw of n + m spins      Errors  ConfigError for pair counts alone
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch

from qfed.config import SynthConfig
from qfed.errors import ConfigError
from qfed.generative.annealers import Annealer, annealer_for
from qfed.generative.boltzmann import LARGEST_MEAN, MOST_READS
from qfed.generative.library import Progress, State, silent
from qfed.generative.statistics import Bits, Floats, PairCounts, checked_bits

_START = 0.05  # spread of the first W: hidden units that start alike stay alike


class RestrictedBoltzmann:
    """Visible and hidden units of one annealer."""

    def __init__(self, config: SynthConfig) -> None:
        self._config = config
        self._annealer: Annealer | None = None
        self._visible: Floats = np.zeros(0)
        self._hidden: Floats = np.zeros(0)
        self._weights: Floats = np.zeros((0, 0))
        self._told: dict[str, Any] = {}

    @classmethod
    def of(cls, config: SynthConfig) -> Self:
        """Not fitted."""
        return cls(config)

    def fit(self, stats: PairCounts, rng: np.random.Generator, progress: Progress = silent) -> Self:
        """Refused: pair counts do not say what hidden units need."""
        raise ConfigError(
            'synth.generator="rbm" learns from records, not from a release of pair counts; fit it where the records '
            'are, from a configuration and with --no-privacy, or use generator = "boltzmann"'
        )

    def fit_records(self, bits: Bits, rng: np.random.Generator, progress: Progress = silent) -> Self:
        """Train on coded records (N, n) in batches of `reads`."""
        spins: Floats = 1.0 - 2.0 * checked_bits(bits).astype(np.float64)
        n, m, reads = spins.shape[1], self._config.hidden, self._config.reads
        annealer = self._annealer = annealer_for(self._config, n + m)
        theta = torch.from_numpy(
            np.concatenate([
                -np.arctanh(np.clip(spins.mean(0), -LARGEST_MEAN, LARGEST_MEAN)),
                np.zeros(m),
                rng.normal(0, _START, n * m),
            ])
        )  # fmt: skip
        adam = torch.optim.Adam([theta], lr=self._config.learning_rate / 5)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(adam, self._config.steps)
        errors: list[float] = []
        for step in range(self._config.steps):
            a, b, w = self._unpack(theta.numpy(), n)
            batch: Floats = spins[rng.choice(len(spins), min(reads, len(spins)), replace=False)]
            wanted = _statistics(batch, np.asarray(-np.tanh(b + batch @ w), dtype=np.float64))
            drawn = annealer.draw(np.concatenate([a, b]), _bipartite(w), reads, rng).astype(np.float64)
            off = wanted - _statistics(drawn[:, :n], drawn[:, n:])
            errors.append(float(np.abs(off).mean()))
            theta.grad = torch.from_numpy(off) + self._config.weight_decay * theta
            adam.step()
            cosine.step()
            if annealer.bounds is not None:
                theta[: n + m].clamp_(-annealer.bounds[0], annealer.bounds[0])
                theta[n + m :].clamp_(-annealer.bounds[1], annealer.bounds[1])
            progress(step + 1, self._config.steps)
        self._visible, self._hidden, self._weights = self._unpack(theta.numpy().copy(), n)
        self._told = {"moment_error_first": errors[0], "moment_error_last": float(np.mean(errors[-10:]))}
        self._told["annealer"] = annealer.report()
        return self

    def sample(self, count: int, rng: np.random.Generator) -> Bits:
        """`count` records; the hidden units are dropped."""
        n = len(self._visible)
        if self._annealer is None:
            self._annealer = annealer_for(self._config, n + len(self._hidden))
        fields = np.concatenate([self._visible, self._hidden])
        drawn = []
        for begin in range(0, count, MOST_READS):
            reads = min(MOST_READS, count - begin)
            drawn.append(self._annealer.draw(fields, _bipartite(self._weights), reads, rng)[:, :n])
        return ((1 - np.concatenate(drawn)) // 2).astype(np.uint8)

    def describe(self) -> dict[str, Any]:
        """Sizes, errors and the annealer's report."""
        n, m = self._weights.shape
        about = {"generator": "rbm", "bits": n, "hidden": m, "parameters": n + m + n * m}
        return about | {"sampler": self._config.sampler} | self._told

    def state(self) -> State:
        """Fields and weights."""
        return {"told": self._told}, {"visible": self._visible, "hidden": self._hidden, "weights": self._weights}

    @classmethod
    def restore(cls, config: SynthConfig, state: State) -> Self:
        """Samples on the configured annealer."""
        self = cls(config)
        about, arrays = state
        self._told = about["told"]
        self._visible, self._hidden, self._weights = arrays["visible"], arrays["hidden"], arrays["weights"]
        return self

    def _unpack(self, theta: Floats, n: int) -> tuple[Floats, Floats, Floats]:
        m = self._config.hidden
        return theta[:n], theta[n : n + m], theta[n + m :].reshape(n, m)


def _statistics(visible: Floats, hidden: Floats) -> Floats:
    return np.concatenate([visible.mean(0), hidden.mean(0), (visible.T @ hidden / len(visible)).ravel()])


def _bipartite(weights: Floats) -> Floats:
    n, m = weights.shape
    return np.block([[np.zeros((n, n)), weights], [weights.T, np.zeros((m, m))]])
