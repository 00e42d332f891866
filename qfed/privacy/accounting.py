"""Epsilon from events and noise from epsilon, by Google's dp-accounting.

    one release   g = sum_{i in S} clip(grad_i, C) + N(0, (sigma C)^2 I),   S: each record with probability q
    q = 1         T releases are one Gaussian with sigma / sqrt(T); exact (Balle and Wang, ICML 2018)
    q < 1         privacy loss distributions of the Poisson-subsampled Gaussian, T-fold (Koskela et al., AISTATS 2020)
    mixed         Renyi divergence over all releases (Feldman and Zrnic, NeurIPS 2021, for adaptive stopping)

PLD accounting is valid for a plan fixed before it runs; so is the RDP filter for plans chosen one after the other, and
the Gaussian closed form for both. `epsilon_of` uses the tightest that is valid for what it is given.
Adjacency: zero-out, which adding or removing a record bounds.   Cost  PLD about 0.1 s, the others 1 ms
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import dp_accounting
from dp_accounting.pld.pld_privacy_accountant import PLDAccountant
from dp_accounting.rdp.rdp_privacy_accountant import RdpAccountant

from qfed.errors import ConfigError

_GRID = 1e-3
LARGEST_SIGMA = 1e4
"""A noise multiplier beyond this leaves nothing to learn; a budget that needs it is too small."""
_ORDERS = (*range(2, 65), 96, 128, 192, 256, 512, 1024)
"""Renyi orders; any set of them gives a valid bound, and whole ones need no series that may not converge."""
_ADJACENCY = dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE


@dataclass(frozen=True)
class Releases:
    """`steps` releases of the sampled Gaussian mechanism with one sampling rate q and noise multiplier sigma."""

    sampling_rate: float
    noise_multiplier: float
    steps: int

    @property
    def event(self) -> dp_accounting.DpEvent:
        """The releases as an event of dp-accounting."""
        once: dp_accounting.DpEvent = dp_accounting.GaussianDpEvent(self.noise_multiplier)
        if self.sampling_rate < 1:
            once = dp_accounting.PoissonSampledDpEvent(self.sampling_rate, once)
        return dp_accounting.SelfComposedDpEvent(once, self.steps)


def epsilon_of(releases: Sequence[Releases], delta: float, *, fixed: bool = True) -> float:
    """Epsilon of all releases together at `delta`; 0 for none.

    `fixed` says that all of it was laid down before the first release; plans chosen one after the other are not.
    """
    merged: dict[tuple[float, float], int] = {}
    for part in releases:
        key = (part.sampling_rate, part.noise_multiplier)
        merged[key] = merged.get(key, 0) + part.steps
    parts = tuple(Releases(q, sigma, steps) for (q, sigma), steps in sorted(merged.items()) if steps)
    if not parts:
        return 0.0
    if all(part.sampling_rate == 1 for part in parts):
        precision = sum(part.steps / part.noise_multiplier**2 for part in parts)
        return float(dp_accounting.get_epsilon_gaussian(1 / math.sqrt(precision), delta))
    return _composed(parts, delta, fixed)


@lru_cache(maxsize=4096)
def _composed(parts: tuple[Releases, ...], delta: float, fixed: bool) -> float:
    accountant = PLDAccountant(_ADJACENCY, _GRID) if fixed else RdpAccountant(_ORDERS, _ADJACENCY)
    for part in parts:
        accountant.compose(part.event)
    return float(accountant.get_epsilon(delta))


@lru_cache(maxsize=256)
def calibrate(epsilon: float, delta: float, sampling_rate: float, steps: int) -> float:
    """The smallest noise multiplier sigma with which `steps` releases stay within (epsilon, delta).

    Raises ConfigError when not even sigma = 10 000 does.
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
        sigma = float(dp_accounting.get_sigma_gaussian(epsilon, delta)) * math.sqrt(steps)
    else:
        sigma = _search(epsilon, delta, sampling_rate, steps)
    while spent(sigma) > epsilon:  # the searches end within a tolerance, on either side
        sigma *= 1 + 1e-6
    return sigma


def _search(epsilon: float, delta: float, sampling_rate: float, steps: int) -> float:
    """Noise for a subsampled plan: the Renyi bound is quick and a little too high, so PLD searches just below it."""

    def event(sigma: float) -> dp_accounting.DpEvent:
        return Releases(sampling_rate, sigma, steps).event

    def solve(accountant: Callable[[], dp_accounting.PrivacyAccountant], low: float, high: float, tol: float) -> float:
        bracket = dp_accounting.ExplicitBracketInterval(low, high)
        return float(dp_accounting.calibrate_dp_mechanism(accountant, event, epsilon, delta, bracket, tol=tol))

    above = solve(lambda: RdpAccountant(_ORDERS, _ADJACENCY), 0.05, LARGEST_SIGMA, 1e-3)
    below = 0.8 * above
    while below > 0.05 and epsilon_of([Releases(sampling_rate, below, steps)], delta) <= epsilon:
        above, below = below, 0.8 * below
    return solve(lambda: PLDAccountant(_ADJACENCY, _GRID), below, above, 2e-4 * above)
