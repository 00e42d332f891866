"""Where a Boltzmann machine's samples come from: samplers of dimod, by the name in synth.sampler.

    p(s) ~ exp(-beta E(s)),     E = h.s + sum_{i<j} J_ij s_i s_j,     s in {-1, 1}^n

    sa     Gibbs sampling at beta = 1 from random states (SimulatedAnnealingSampler with beta_range=[1, 1])
    sqa    path-integral Monte Carlo of a transverse field that is turned down: near that law, not of it
    mock   a whole annealer's graph with an embedding, its anneal simulated (embedded.py)
    qpu    a D-Wave system (leap.py)

Only `sa` samples the law itself, up to what 100 sweeps leave of the random start. For the others the training loop
learns the fields and couplings under which their samples have the wanted moments, whatever their law and temperature:
such a model is one of the sampler as well, and samples drawn elsewhere differ. Simulated annealing with its default
schedule is no sampler of a law at all: it seeks the ground state.
Shapes  h (n,), J (n, n) symmetric with diagonal 0, samples (reads, n) int8      Units  E in units of kT at beta = 1
Cost    sa: reads x sweeps x n^2      Errors  MissingExtra without the extra dwave
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from qfed.config import SynthConfig
from qfed.errors import MissingExtra
from qfed.generative.statistics import Floats

Spins = npt.NDArray[np.int8]

SWEEPS = 100


class Annealer(Protocol):
    """A source of samples."""

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Largest |h| and |J| that it can hold; None without bounds."""

    def draw(self, fields: Floats, couplings: Floats, reads: int, rng: np.random.Generator) -> Spins:
        """Samples (reads, n)."""

    def report(self) -> dict[str, Any]:
        """What it is, and what there is to know about its samples so far, in JSON's types."""


def annealer_for(config: SynthConfig, bits: int) -> Annealer:
    """The sampler of the configuration, for problems of this many spins."""
    try:
        if config.sampler == "sa":
            return GibbsAnnealer()
        if config.sampler == "sqa":
            return PathIntegralAnnealer()
        if config.sampler == "mock":
            from qfed.generative.embedded import simulated_system

            return simulated_system(config, bits)
        from qfed.generative.leap import remote_system

        return remote_system(config, bits)
    except ModuleNotFoundError as error:
        if (missing := MissingExtra.of(error)) is None:
            raise
        raise missing from None


def problem(fields: Floats, couplings: Floats) -> Any:
    """The dimod model of h and J, over the variables 0 .. n - 1; every pair is in it."""
    from dimod import BinaryQuadraticModel

    n = len(fields)
    row, column = np.triu_indices(n, 1)
    return BinaryQuadraticModel.from_numpy_vectors(fields, (row, column, couplings[row, column]), 0.0, "SPIN")


def spins_of(samples: Any, variables: int) -> Spins:
    """A dimod sample set as (reads, n), every read once and in the order of the variables."""
    values = np.repeat(samples.record.sample, samples.record.num_occurrences, axis=0)
    place = {name: at for at, name in enumerate(samples.variables)}
    return np.asarray(values[:, [place[i] for i in range(variables)]], dtype=np.int8)


def seed_of(rng: np.random.Generator) -> int:
    """A seed as the samplers take it."""
    return int(rng.integers(2**31))


class GibbsAnnealer:
    """sa"""

    bounds: tuple[float, float] | None = None

    def __init__(self, beta: float = 1.0, sweeps: int = SWEEPS) -> None:
        from dwave.samplers import SimulatedAnnealingSampler

        self._sampler = SimulatedAnnealingSampler()
        self._how: dict[str, Any] = {
            "beta_range": [beta, beta],
            "num_sweeps": sweeps,
            "randomize_order": True,
            "proposal_acceptance_criteria": "Gibbs",
        }

    def draw(self, fields: Floats, couplings: Floats, reads: int, rng: np.random.Generator) -> Spins:
        """Samples (reads, n), the same for the same state of `rng`."""
        found = self._sampler.sample(problem(fields, couplings), num_reads=reads, seed=seed_of(rng), **self._how)
        return spins_of(found, len(fields))

    def report(self) -> dict[str, Any]:
        """Name and schedule."""
        return {"sampler": "sa", "beta": self._how["beta_range"][0], "sweeps": self._how["num_sweeps"]}


class PathIntegralAnnealer:
    """sqa: the transverse field falls from 3 to `_LEFT` while the problem rises, then both stay."""

    bounds: tuple[float, float] | None = None
    _RISE, _STAY, _START, _LEFT = 80, 20, 3.0, 0.06

    def __init__(self) -> None:
        from dwave.samplers import PathIntegralAnnealingSampler

        self._sampler = PathIntegralAnnealingSampler()
        rise = np.linspace(0, 1, self._RISE)
        self._how: dict[str, Any] = {
            "Hp_field": np.concatenate([rise, np.ones(self._STAY)]),
            "Hd_field": np.concatenate(
                [np.linspace(self._START, self._LEFT, self._RISE), np.full(self._STAY, self._LEFT)]
            ),
            "beta_schedule_type": "custom",
        }

    def draw(self, fields: Floats, couplings: Floats, reads: int, rng: np.random.Generator) -> Spins:
        """Samples (reads, n), the same for the same state of `rng`."""
        found = self._sampler.sample(problem(fields, couplings), num_reads=reads, seed=seed_of(rng), **self._how)
        return spins_of(found, len(fields))

    def report(self) -> dict[str, Any]:
        """Name and schedule."""
        return {"sampler": "sqa", "sweeps": self._RISE + self._STAY, "transverse_field": [self._START, self._LEFT]}
