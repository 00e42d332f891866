"""Epsilon from events and noise from epsilon, by Google's dp-accounting, for a plan fixed before it runs.

    one release   g = sum_{i in S} clip(grad_i, C) + N(0, (sigma C)^2 I),   S: each record with probability q
    q = 1         T releases are one Gaussian with sigma / sqrt(T); exact (Balle and Wang, ICML 2018)
    q < 1         privacy loss distributions of the Poisson-subsampled Gaussian, T-fold (Koskela et al., AISTATS 2020),
                  or Renyi divergence (Mironov, CSF 2017) where the grid of the former costs more than the latter

All are upper bounds for the same releases, so the smallest is one. They hold when number, rate and noise of the
releases were laid down before the first one; what each asks may depend on the answers before it. Runs that join later
are the business of filter.py.
Adjacency: zero-out, which adding or removing a record bounds.
Cost  q = 1: 0.1 ms; q < 1: 0.05 to 1 s an epsilon, ten times that a calibration      Errors  ConfigError
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import dp_accounting
from dp_accounting import dp_event
from dp_accounting.pld.pld_privacy_accountant import PLDAccountant
from dp_accounting.rdp.rdp_privacy_accountant import RdpAccountant
from scipy.optimize import brentq

from qfed.errors import ConfigError

RESERVED = 1e-9
"""Share of delta that is kept for the distance of the sampled noise from its distribution."""


def accounted(delta: float) -> float:
    """The delta that is left for the mechanism itself."""
    return delta * (1 - RESERVED)


_GRIDS = (1e-3, 1e-4)
_GRID_SHARE = 5e-3
"""The finer grid is taken where the coarse one may cost more than this share of epsilon: about T grid^2."""
SMALLEST_SIGMA, LARGEST_SIGMA = 0.1, 1e4
"""Below, nothing is private; above, there is nothing left to learn, so a budget that needs it is too small."""
ORDERS = (*range(2, 65), 96, 128, 192, 256, 512, 1024)
"""Renyi orders; any set of them gives a valid bound, and whole ones need no series that may not converge."""
ADJACENCY = dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE


@dataclass(frozen=True)
class Releases:
    """`steps` releases of the sampled Gaussian mechanism with one sampling rate q and noise multiplier sigma."""

    sampling_rate: float
    noise_multiplier: float
    steps: int

    def __post_init__(self) -> None:
        if not (0 < self.sampling_rate <= 1 and 0 < self.noise_multiplier < math.inf and self.steps >= 0):
            raise ConfigError(
                f"releases need 0 < sampling_rate <= 1, 0 < noise_multiplier and 0 <= steps, got "
                f"sampling_rate={self.sampling_rate}, noise_multiplier={self.noise_multiplier}, steps={self.steps}"
            )

    @property
    def event(self) -> dp_accounting.DpEvent:
        """The releases as an event of dp-accounting."""
        once: dp_accounting.DpEvent = dp_accounting.GaussianDpEvent(self.noise_multiplier)
        if self.sampling_rate < 1:
            once = dp_accounting.PoissonSampledDpEvent(self.sampling_rate, once)
        return dp_accounting.SelfComposedDpEvent(once, self.steps)


def merged(releases: Iterable[Releases]) -> tuple[Releases, ...]:
    """The same releases in one canonical form: equal mechanisms together, none with zero steps, sorted."""
    steps: dict[tuple[float, float], int] = {}
    for part in releases:
        key = (part.sampling_rate, part.noise_multiplier)
        steps[key] = steps.get(key, 0) + part.steps
    return tuple(Releases(q, sigma, count) for (q, sigma), count in sorted(steps.items()) if count)


def epsilon_of(releases: Sequence[Releases], delta: float) -> float:
    """Epsilon at `delta` of all releases together, as one plan fixed before the first of them; 0 for none."""
    parts = merged(releases)
    if not parts:
        return 0.0
    if all(part.sampling_rate == 1 for part in parts):
        precision = sum(part.steps / part.noise_multiplier**2 for part in parts)
        return _gaussian(precision, delta)
    return _subsampled(parts, delta)


@lru_cache(maxsize=4096)
def _gaussian(precision: float, delta: float) -> float:
    return float(dp_accounting.get_epsilon_gaussian(1 / math.sqrt(precision), delta))


@lru_cache(maxsize=4096)
def _subsampled(parts: tuple[Releases, ...], delta: float) -> float:
    steps = sum(part.steps for part in parts)
    best = _composed(lambda: RdpAccountant(ORDERS, ADJACENCY), parts, delta)
    for grid in _GRIDS:
        best = min(best, _composed(lambda grid=grid: PLDAccountant(ADJACENCY, grid), parts, delta))  # type: ignore[misc]
        if steps * grid**2 <= _GRID_SHARE * best:
            break
    return best


def _composed(
    accountant: Callable[[], dp_accounting.PrivacyAccountant], parts: Iterable[Releases], delta: float
) -> float:
    fresh = accountant()
    for part in parts:
        fresh.compose(part.event)
    return float(fresh.get_epsilon(delta))


def person_epsilon(releases: Releases, delta: float, sites: int, *, one_sum: bool) -> float:
    """Epsilon of a person who has one record at each of `sites` sites, each of which makes these releases.

    `one_sum`: the sites' records go into one sum with one noise (modes shared and site), which then moves by up to
    `sites` times the clip norm; else every site has noise of its own (mode local) and their releases compose.
    """
    if not one_sum:
        return epsilon_of([replace(releases, steps=releases.steps * sites)], delta)
    if releases.sampling_rate == 1 or sites == 1:
        return epsilon_of([replace(releases, noise_multiplier=releases.noise_multiplier / sites)], delta)
    return _group(releases, delta, sites)


@lru_cache(maxsize=256)
def _group(releases: Releases, delta: float, sites: int) -> float:
    from scipy.stats import binom  # half a second to import

    counts = range(sites + 1)
    chances = binom.pmf(counts, sites, releases.sampling_rate)
    once = dp_event.MixtureOfGaussiansDpEvent(releases.noise_multiplier, list(counts), list(chances))
    best = math.inf
    for grid in _GRIDS:
        accountant = PLDAccountant(ADJACENCY, grid).compose(dp_accounting.SelfComposedDpEvent(once, releases.steps))
        best = min(best, float(accountant.get_epsilon(delta)))
        if releases.steps * grid**2 <= _GRID_SHARE * best:
            break
    return best


@lru_cache(maxsize=256)
def calibrate(epsilon: float, delta: float, sampling_rate: float, steps: int) -> float:
    """The smallest noise multiplier sigma, to 1e-3, with which `steps` releases stay within (epsilon, delta).

    Never below 0.1. Raises ConfigError when not even sigma = 10 000 is enough.
    """

    def spent(sigma: float) -> float:
        return epsilon_of([Releases(sampling_rate, sigma, steps)], delta)

    if spent(LARGEST_SIGMA) > epsilon:
        raise ConfigError(
            f"privacy.epsilon={epsilon:g} at delta={delta:g} is too small for {steps} steps at sampling_rate="
            f"{sampling_rate:g}: even a noise multiplier of {LARGEST_SIGMA:g} spends {spent(LARGEST_SIGMA):.3g}; "
            "raise it, or lower training.rounds or training.local_steps"
        )
    if sampling_rate == 1:
        sigma = max(SMALLEST_SIGMA, float(dp_accounting.get_sigma_gaussian(epsilon, delta)) * math.sqrt(steps))
    else:
        sigma = _search(epsilon, delta, sampling_rate, steps, spent)
    while spent(sigma) > epsilon:  # the searches end within a tolerance, on either side
        sigma *= 1 + (1e-6 if sampling_rate == 1 else 2e-4)
    return sigma


def _search(epsilon: float, delta: float, sampling_rate: float, steps: int, spent: Callable[[float], float]) -> float:
    """Noise for a subsampled plan: the Renyi bound is quick and never too low, so the costly search starts below it."""

    def renyi(sigma: float) -> float:
        return _composed(lambda: RdpAccountant(ORDERS, ADJACENCY), [Releases(sampling_rate, sigma, steps)], delta)

    if renyi(SMALLEST_SIGMA) <= epsilon:
        return SMALLEST_SIGMA
    above = LARGEST_SIGMA
    if renyi(above) < epsilon:
        above = brentq(lambda sigma: renyi(sigma) - epsilon, SMALLEST_SIGMA, above, rtol=1e-4) * (1 + 1e-3)
    below = 0.8 * above
    while spent(below) <= epsilon:
        if below <= SMALLEST_SIGMA:
            return SMALLEST_SIGMA
        above, below = below, max(0.8 * below, SMALLEST_SIGMA)
    return float(brentq(lambda sigma: spent(sigma) - epsilon, below, above, rtol=2e-4))
