"""From a budget to noise and back, for every mode, before anything runs.

local    every site adds all of the noise; a step is a release of its own data set; trusts nobody
shared   n_min = m - c honest shares add up to it: a share has sigma / sqrt(n_min), so that k shares alone are worth
         sigma sqrt(k / n_min), and the mean over n sites has sqrt(n / n_min) / sqrt(n) of a local site's noise
site     as shared, for one update a round, q = 1

A person with a record at each of k sites, each sampled for itself: in mode local k plans compose; in mode shared the
sum moves by up to k C, the number of the person's records in a step being Binomial(k, q): a mixture of Gaussians
(Choquette-Choo et al., arXiv 2310.15526, as an event of dp-accounting).
Cost  q = 1: milliseconds; q < 1: some seconds      Errors  ConfigError when no noise is enough for the budget
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qfed.config import RunConfig
from qfed.errors import ConfigError
from qfed.privacy.accounting import Releases, calibrate, epsilon_of, person_epsilon
from qfed.privacy.forecast import Cohort, Curve, Forecast, ModeCost
from qfed.privacy.plan import plan_for

MODES = ("shared", "local", "site")
_MOST_SITES_OF_A_PERSON = 4
_TRUSTS = {
    "shared": "the secure aggregation, and n_min honest sites",
    "local": "nobody",
    "site": "the secure aggregation, and n_min honest sites",
}


@dataclass(frozen=True)
class _Terms:
    """The figures that a mode's cost is made of."""

    mode: str
    rate: float
    steps: int
    sites: int
    honest: int
    delta: float

    def epsilon(self, sigma: float, steps: int | None = None, rate: float | None = None) -> float:
        return epsilon_of([Releases(rate or self.rate, sigma, self.steps if steps is None else steps)], self.delta)

    @property
    def shared(self) -> bool:
        return self.mode != "local"


def forecast(config: RunConfig, noise_multiplier: float | None = None) -> Forecast:
    """What `config` will cost; with `noise_multiplier`, what that noise gives instead of what the budget needs."""
    if config.privacy.mode == "off":
        raise ConfigError('privacy.mode="off" has no noise to calibrate; choose a private mode')
    given = noise_multiplier if noise_multiplier is not None else config.privacy.noise_multiplier
    terms = {mode: _terms(config, mode) for mode in MODES}
    sigma = {mode: given or calibrate(config.privacy.epsilon, t.delta, t.rate, t.steps) for mode, t in terms.items()}
    if given is None:
        sigma[config.privacy.mode] = plan_for(config).noise_multiplier or 0.0  # the plan that will run
    mine, noise = terms[config.privacy.mode], sigma[config.privacy.mode]
    return Forecast(
        name=config.name,
        mode=mine.mode,
        budget=config.privacy.epsilon,
        delta=mine.delta,
        rounds=config.training.rounds,
        steps=mine.steps,
        sampling_rate=mine.rate,
        modes=tuple(_cost(t, sigma[mode]) for mode, t in terms.items()),
        rounds_curves=_over_rounds(config, mine, noise),
        cohort=_cohort(config, terms["shared"] if not mine.shared else mine, noise),
        person_curves=tuple(_person(terms[mode], sigma[mode]) for mode in ("shared", "local")),
    )


def _terms(config: RunConfig, mode: str) -> _Terms:
    training, sites = config.training, config.federation.sites
    rate, steps = training.sampling_rate, training.rounds * training.local_steps
    if mode == "site":
        rate, steps = 1.0, training.rounds
    return _Terms(mode, rate, steps, sites, config.honest, config.privacy.delta)


def _cost(terms: _Terms, sigma: float) -> ModeCost:
    share, sites = terms.sites / terms.honest, terms.sites
    return ModeCost(
        mode=terms.mode,
        unit="site" if terms.mode == "site" else "record",
        trusts=_TRUSTS[terms.mode],
        noise_multiplier=sigma,
        epsilon=terms.epsilon(sigma),
        epsilon_alone=terms.epsilon(sigma / math.sqrt(terms.honest)) if terms.shared else None,
        mean_noise=sigma * math.sqrt(share) / sites if terms.shared else sigma / math.sqrt(sites),
    )


def _over_rounds(config: RunConfig, terms: _Terms, sigma: float) -> tuple[Curve, ...]:
    """epsilon after 1 to 2 R rounds, at this noise and (shared noise) of a site's own share."""
    most, each = 2 * config.training.rounds, terms.steps // config.training.rounds
    points = 40 if terms.rate == 1 else 10
    rounds = sorted({config.training.rounds, *np.unique(np.linspace(1, most, min(most, points)).astype(int)).tolist()})

    def curve(label: str, noise: float) -> Curve:
        return Curve(label, tuple(map(float, rounds)), tuple(terms.epsilon(noise, each * r) for r in rounds))

    found = [curve(f"mode {terms.mode}, noise multiplier {sigma:.3g}", sigma)]
    if terms.shared:
        found.append(curve("a site's own share, if secure aggregation failed", sigma / math.sqrt(terms.honest)))
    return tuple(found)


def _cohort(config: RunConfig, terms: _Terms, sigma: float) -> Cohort:
    """How epsilon depends on how many shares of the noise count."""
    sites, honest = terms.sites, terms.honest
    counts = sorted({1, honest, *np.unique(np.linspace(1, sites, min(sites, 12)).astype(int)).tolist()})
    left = tuple(terms.epsilon(sigma * math.sqrt(k / honest)) for k in counts)
    survivors, colluders = config.federation.least_survivors, config.colluders
    safe = 2 * honest >= sites
    verdict = (
        f"a sum is opened over at least {survivors} of {sites} sites, so {sites - survivors} may drop out; if "
        f"{colluders} of them work with the aggregator, {honest} shares of the noise are left, and they are enough for "
        "the claimed epsilon"
    )
    if not safe:
        verdict += (
            f"; but {honest} of {sites} is less than half of the federation: raise federation.quorum, or the number of "
            "sites"
        )
    return Cohort(
        sites, survivors, colluders, honest, Curve("shares that count", tuple(map(float, counts)), left), safe, verdict
    )


def _person(terms: _Terms, sigma: float) -> Curve:
    most = _MOST_SITES_OF_A_PERSON if terms.rate == 1 else _MOST_SITES_OF_A_PERSON - 1  # mixtures take seconds each
    sites: Sequence[int] = range(1, min(terms.sites, most) + 1)
    releases = Releases(terms.rate, sigma, terms.steps)
    spent = tuple(person_epsilon(releases, terms.delta, k, one_sum=terms.shared) for k in sites)
    return Curve(f"mode {terms.mode}", tuple(map(float, sites)), spent)
