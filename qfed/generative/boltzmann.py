"""Fully visible Boltzmann machine, fitted to pair counts with an annealer for its own moments.

    p(s) ~ exp(-h.s - sum_{i<j} J_ij s_i s_j)
    dL/dh_i = m_i - <s_i>_model + w_i h_i,     dL/dJ_ij = m_ij - <s_i s_j>_model + w_ij J_ij

m are the released moments, <.>_model those of the annealer's samples at the present h and J: a closed loop, so that
its effective temperature, and in part its bias, end up in h and J. w is the prior's weight (prior.py), which keeps the
noise in m out of the couplings. Adam on a cosine; the mean of the last quarter of the steps is the result. Starts
at the independent law, h_i = -artanh m_i.
Sources: Ackley, Hinton, Sejnowski, Cogn. Sci. 9, 147 (1985); Benedetti et al., Phys. Rev. A 94, 022308 (2016) for the
effective temperature. Departure: no hidden units (rbm.py has them), since data are seen through pair counts only.
Nothing here is private or not: it sees a release, and adds neither noise nor data. An annealer's randomness protects
nobody.
Shapes  h (n,), J (n, n) symmetric      Cost  steps x one draw of the annealer      Errors  those of the annealer
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch

from qfed.config import SynthConfig
from qfed.generative.annealers import Annealer, Spins, annealer_for, problem
from qfed.generative.library import Progress, State, silent
from qfed.generative.prior import penalty
from qfed.generative.statistics import Bits, Floats, PairCounts

LARGEST_MEAN = 0.95
MOST_READS = 10_000
"""In one draw; annealers take no more in one problem."""


class Boltzmann:
    """Fields and couplings that make one annealer's samples have the released moments."""

    def __init__(self, config: SynthConfig) -> None:
        self._config = config
        self._annealer: Annealer | None = None
        self._fields: Floats = np.zeros(0)
        self._couplings: Floats = np.zeros((0, 0))
        self._told: dict[str, Any] = {}

    @classmethod
    def of(cls, config: SynthConfig) -> Self:
        """Not fitted."""
        return cls(config)

    def fit(self, stats: PairCounts, rng: np.random.Generator, progress: Progress = silent) -> Self:
        """Train in the closed loop; with sampler "sa" the same for the same state of `rng`."""
        n = len(stats.bits)
        annealer = self._annealer = annealer_for(self._config, n)
        upper = np.triu_indices(n, 1)
        target = np.concatenate([stats.means, stats.correlations[upper]])
        theta = torch.zeros(len(target), dtype=torch.float64)
        theta[:n] = torch.from_numpy(-np.arctanh(np.clip(stats.means, -LARGEST_MEAN, LARGEST_MEAN)))
        adam = torch.optim.Adam([theta], lr=self._config.learning_rate)
        steps = self._config.steps
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
        limits, weights = _limits(annealer, n, len(target)), penalty(stats, self._config.prior)
        averaged, errors = np.zeros(len(target)), []
        last = max(1, steps // 4)
        for step in range(steps):
            fields, couplings = _unpack(theta.numpy(), n)
            off = target - moments_of(annealer.draw(fields, couplings, self._config.reads, rng))
            errors.append(float(np.abs(off).mean()))
            theta.grad = torch.from_numpy(off + weights * theta.numpy())
            adam.step()
            cosine.step()
            if limits is not None:
                theta.clamp_(-limits, limits)
            if step >= steps - last:
                averaged += theta.numpy() / last
            progress(step + 1, steps)
        if limits is not None:
            averaged = np.clip(averaged, -limits.numpy(), limits.numpy())  # the mean may round past them
        self._fields, self._couplings = _unpack(averaged, n)
        final = annealer.draw(self._fields, self._couplings, self._config.reads, rng)
        at_bounds = 0 if limits is None else int((np.abs(averaged) >= 0.999 * limits.numpy()).sum())
        self._told = {
            "moment_error_first": errors[0],
            "moment_error_last": float(np.mean(errors[-last:])),
            "moment_error": float(np.abs(target - moments_of(final)).mean()),
            "moment_error_of_reads": float(np.sqrt((1 - target**2) / self._config.reads).mean() * np.sqrt(2 / np.pi)),
            "inverse_temperature": inverse_temperature(self._fields, self._couplings, final),
            "coefficients_at_bounds": at_bounds,
            "annealer": annealer.report(),
        }
        return self

    def sample(self, count: int, rng: np.random.Generator) -> Bits:
        """`count` records, drawn on the annealer that the machine was trained on."""
        if self._annealer is None:
            self._annealer = annealer_for(self._config, len(self._fields))
        drawn = []
        for begin in range(0, count, MOST_READS):
            reads = min(MOST_READS, count - begin)
            drawn.append(self._annealer.draw(self._fields, self._couplings, reads, rng)[:reads])
        return ((1 - np.concatenate(drawn)) // 2).astype(np.uint8)

    def describe(self) -> dict[str, Any]:
        """The training's errors in m, what of them 500 (`reads`) perfect samples would show, and the annealer's report.

        "inverse_temperature" is how many kT one unit of energy is worth in the annealer's samples, 1 for `sa`; other
        samplers were given energies in units of their own guess.
        """
        n = len(self._fields)
        about = {"generator": "boltzmann", "bits": n, "parameters": n * (n + 1) // 2, "sampler": self._config.sampler}
        return about | self._told

    def state(self) -> State:
        """Fields, couplings and the training's figures."""
        return {"told": self._told}, {"fields": self._fields, "couplings": self._couplings}

    @classmethod
    def restore(cls, config: SynthConfig, state: State) -> Self:
        """Samples on the configured annealer."""
        self = cls(config)
        about, arrays = state
        self._told, self._fields, self._couplings = about["told"], arrays["fields"], arrays["couplings"]
        return self


def moments_of(spins: Spins) -> Floats:
    """<s_i> and <s_i s_j>, i < j, of samples (reads, n): (n (n + 1) / 2,)."""
    values = spins.astype(np.float64)
    pairs = values.T @ values / len(values)
    return np.concatenate([values.mean(0), pairs[np.triu_indices(len(pairs), 1)]])


def inverse_temperature(fields: Floats, couplings: Floats, spins: Spins) -> float | None:
    """Maximum pseudo-likelihood estimate of beta (dwave-system's); None where no sample is ever excited."""
    from dwave.system.temperatures import maximum_pseudolikelihood_temperature

    temperature, _ = maximum_pseudolikelihood_temperature(
        problem(fields, couplings), (spins, list(range(spins.shape[1])))
    )
    return float(1 / temperature) if temperature > 0 else None


def _unpack(theta: Floats, n: int) -> tuple[Floats, Floats]:
    couplings = np.zeros((n, n))
    couplings[np.triu_indices(n, 1)] = theta[n:]
    return np.array(theta[:n]), couplings + couplings.T


def _limits(annealer: Annealer, n: int, size: int) -> torch.Tensor | None:
    if annealer.bounds is None:
        return None
    limits = torch.full((size,), annealer.bounds[1], dtype=torch.float64)
    limits[:n] = annealer.bounds[0]
    return limits
