"""Epsilon against published values, other accountants and closed forms."""

from __future__ import annotations

import mpmath  # type: ignore[import-untyped]
import pytest
from opacus.accountants import PRVAccountant

from qfed.errors import ConfigError
from qfed.privacy.accounting import Releases, calibrate, epsilon_of


def test_known_value_of_many_epochs() -> None:
    # n=500, b=32 (q = 1/16), sigma=1, 50 rounds of 5 epochs of 16 steps: 34.0, where a new engine each round says 3.99.
    assert epsilon_of([Releases(1 / 16, 1.0, 4000)], 1e-5) == pytest.approx(34.0, abs=0.05)


def test_published_value_of_the_mnist_tutorial() -> None:
    # TensorFlow Privacy's tutorial: n=60000, b=256, sigma=1.1, 60 epochs: RDP gives 3.0; PLD is tighter, never above.
    value = epsilon_of([Releases(256 / 60000, 1.1, 60 * 60000 // 256)], 1e-5)
    assert 2.3 < value < 3.01


@pytest.mark.parametrize(
    "releases", [pytest.param(Releases(1 / 16, 1.0, 4000), marks=pytest.mark.slow), Releases(0.2, 3.0, 100)]
)
def test_agrees_with_opacus_prv(releases: Releases) -> None:
    other = PRVAccountant()
    other.history = [(releases.noise_multiplier, releases.sampling_rate, releases.steps)]
    # PRV returns an upper estimate with eps_error 0.01.
    assert epsilon_of([releases], 1e-5) == pytest.approx(other.get_epsilon(1e-5, eps_error=0.01), abs=0.02)


def test_full_batch_is_the_gaussian_closed_form() -> None:
    # Balle and Wang 2018, eq. (8), solved with mpmath at 40 digits.
    mpmath.mp.dps = 40
    sigma, steps, delta = 10.0, 60, 1e-5
    effective = mpmath.mpf(sigma) / mpmath.sqrt(steps)

    def excess(eps: mpmath.mpf) -> mpmath.mpf:
        a, b = 1 / (2 * effective), eps * effective
        return mpmath.ncdf(a - b) - mpmath.exp(eps) * mpmath.ncdf(-a - b) - delta

    exact = mpmath.findroot(excess, (0.1, 20), solver="bisect", tol=1e-30)
    assert epsilon_of([Releases(1.0, sigma, steps)], delta) == pytest.approx(float(exact), abs=1e-6)


def test_more_is_never_less() -> None:
    values = [epsilon_of([Releases(0.1, 1.5, steps)], 1e-5) for steps in (1, 10, 100)]
    assert values == sorted(values)
    assert epsilon_of([], 1e-5) == 0.0


def test_order_and_grouping_do_not_matter() -> None:
    one = [Releases(0.1, 1.5, 30), Releases(0.2, 2.0, 10), Releases(0.1, 1.5, 20)]
    two = [Releases(0.2, 2.0, 10), Releases(0.1, 1.5, 50)]
    assert epsilon_of(one, 1e-5) == epsilon_of(two, 1e-5)


def test_small_losses_of_many_steps_are_not_drowned_by_the_grid() -> None:
    # q = 1 is exact and dominates q < 1, so it bounds what a grid may add to many tiny losses.
    exact = epsilon_of([Releases(1.0, 2000.0, 10_000)], 1e-5)
    assert epsilon_of([Releases(0.99, 2000.0, 10_000)], 1e-5) < 1.02 * exact


@pytest.mark.parametrize(("epsilon", "rate", "steps"), [(0.01, 0.02, 100), (0.1, 0.001, 10_000), (0.1, 0.5, 10_000)])
def test_calibration_finds_noise_for_tiny_budgets(epsilon: float, rate: float, steps: int) -> None:
    sigma = calibrate(epsilon, 1e-5, rate, steps)
    assert epsilon_of([Releases(rate, sigma, steps)], 1e-5) <= epsilon
    assert epsilon_of([Releases(rate, sigma * 0.98, steps)], 1e-5) > epsilon


def test_calibration_stops_at_a_least_noise() -> None:
    assert calibrate(1e6, 1e-5, 0.1, 10) == calibrate(1e6, 1e-5, 1.0, 10) == 0.1


@pytest.mark.parametrize("terms", [(0.0, 1.0, 1), (1.1, 1.0, 1), (0.5, 0.0, 1), (0.5, float("nan"), 1), (0.5, 1.0, -1)])
def test_releases_that_mean_nothing_are_refused(terms: tuple[float, float, int]) -> None:
    with pytest.raises(ConfigError, match="releases need"):
        Releases(*terms)


@pytest.mark.parametrize(("epsilon", "rate", "steps"), [(3.0, 1.0, 60), (1.0, 0.1, 200), (8.0, 0.05, 1000)])
def test_calibration_hits_the_budget_from_below(epsilon: float, rate: float, steps: int) -> None:
    sigma = calibrate(epsilon, 1e-5, rate, steps)
    assert 0.995 * epsilon < epsilon_of([Releases(rate, sigma, steps)], 1e-5) <= epsilon
    assert epsilon_of([Releases(rate, sigma * 0.99, steps)], 1e-5) > epsilon
