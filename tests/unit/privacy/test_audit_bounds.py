"""Lower bounds on epsilon: published values, and never above the truth where the truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from qfed.errors import ConfigError
from qfed.privacy.audit.bounds import auc_mu, epsilon_of_mu, f_dp, lower_bounds, one_run

DELTA = 1e-5


@pytest.mark.parametrize(
    ("terms", "published"),
    [
        ((1000, 100, 75, 1e-4), 0.673),  # Steinke et al., arXiv 2305.08846, appendix D
        ((100_000, 1510, 1439, 1e-5), 2.675),  # the same, section 7
    ],
)
def test_one_run_gives_the_published_values(terms: tuple[int, int, int, float], published: float) -> None:
    assert one_run(*terms, level=0.05) == pytest.approx(published, abs=1e-3)


def test_guesses_no_better_than_a_coin_prove_nothing() -> None:
    assert one_run(1000, 200, 100, DELTA, 0.01) == 0.0
    assert f_dp(1000, 200, 100, 0.01) == 0.0
    assert one_run(1000, 200, 0, DELTA, 0.01) == 0.0


def test_more_right_guesses_prove_more() -> None:
    for bound in (lambda v: one_run(1000, 200, v, DELTA, 0.01), lambda v: f_dp(1000, 200, v, 0.01)):
        values = [bound(v) for v in (120, 150, 180, 199, 200)]
        assert values == sorted(values)
        assert values[-1] > values[0] > 0


def test_f_dp_is_the_tighter_one_for_gaussian_noise() -> None:
    # All of 1000 canaries guessed at mu = 1: Phi(1/2) of them right.
    right = round(1000 * 0.6915)
    assert epsilon_of_mu(f_dp(1000, 1000, right, 0.05), DELTA) > one_run(1000, 1000, right, DELTA, 0.05)


def test_auc_of_known_separation() -> None:
    rng = np.random.default_rng(1)
    mu = auc_mu(rng.normal(2.0, 1, 20_000), rng.normal(0, 1, 20_000), 0.01)
    assert 1.9 < mu < 2.0
    assert auc_mu(rng.normal(0, 1, 1000), rng.normal(0, 1, 1000), 1e-4) == 0.0


@pytest.mark.parametrize("mu", [0.5, 1.0, 3.0])
def test_bounds_stay_below_the_truth(mu: float) -> None:
    """The Gaussian mechanism on independent canaries has exactly mu-GDP; 40 runs, bounds at 99 %."""
    truth, rng, above = epsilon_of_mu(mu, DELTA), np.random.default_rng(2), {"one run": 0, "f-DP": 0, "GDP-AUC": 0}
    shown = []
    for _ in range(40):
        included = rng.random(1000) < 0.5
        scores = mu * included + rng.standard_normal(1000)
        bounds = lower_bounds(scores, included, DELTA, 0.99)
        for bound in bounds:
            above[bound.name] += bound.epsilon > truth
        shown.append(max(bound.epsilon for bound in bounds))
    assert above["one run"] <= 1
    assert above["f-DP"] <= 1
    assert above["GDP-AUC"] <= 2
    assert np.median(shown) > 0.4 * truth, "and they say something"


def test_canaries_of_one_kind_are_refused() -> None:
    with pytest.raises(ConfigError, match="both kinds"):
        lower_bounds(np.zeros(10), np.ones(10, bool), DELTA, 0.95)


def test_infinite_leakage_has_a_finite_bound() -> None:
    included = np.arange(1000) % 2 == 0
    for bound in lower_bounds(included.astype(float), included, DELTA, 0.99):
        assert 4 < bound.epsilon < math.inf
