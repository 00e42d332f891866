"""Epsilon against published values, other accountants and closed forms."""

from __future__ import annotations

import mpmath
import pytest
from opacus.accountants import PRVAccountant

from qfed.privacy.accounting import Releases, calibrate, epsilon_of


def test_known_value_of_many_epochs() -> None:
    # n=500, b=32 (q = 1/16), sigma=1, 50 rounds of 5 epochs of 16 steps: 34.0, where a new engine each round says 3.99.
    assert epsilon_of([Releases(1 / 16, 1.0, 4000)], 1e-5) == pytest.approx(34.0, abs=0.05)


def test_published_value_of_the_mnist_tutorial() -> None:
    # TensorFlow Privacy's tutorial: n=60000, b=256, sigma=1.1, 60 epochs: RDP gives 3.0; PLD is tighter, never above.
    value = epsilon_of([Releases(256 / 60000, 1.1, 60 * 60000 // 256)], 1e-5)
    assert 2.3 < value < 3.01


@pytest.mark.parametrize("releases", [Releases(1 / 16, 1.0, 4000), Releases(0.2, 3.0, 100)])
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
    for fixed in (True, False):
        values = [epsilon_of([Releases(0.1, 1.5, steps)], 1e-5, fixed=fixed) for steps in (1, 10, 100)]
        assert values == sorted(values)
    assert epsilon_of([], 1e-5) == 0.0


def test_plans_chosen_one_after_the_other_cost_no_less_than_a_fixed_one() -> None:
    releases = [Releases(0.1, 1.5, 100), Releases(0.2, 2.0, 50)]
    assert epsilon_of(releases, 1e-5, fixed=False) >= epsilon_of(releases, 1e-5, fixed=True)


def test_order_and_grouping_do_not_matter() -> None:
    one = [Releases(0.1, 1.5, 30), Releases(0.2, 2.0, 10), Releases(0.1, 1.5, 20)]
    two = [Releases(0.2, 2.0, 10), Releases(0.1, 1.5, 50)]
    assert epsilon_of(one, 1e-5, fixed=False) == epsilon_of(two, 1e-5, fixed=False)


@pytest.mark.parametrize(("epsilon", "rate", "steps"), [(3.0, 1.0, 60), (1.0, 0.1, 200), (8.0, 0.05, 1000)])
def test_calibration_hits_the_budget_from_below(epsilon: float, rate: float, steps: int) -> None:
    sigma = calibrate(epsilon, 1e-5, rate, steps)
    assert 0.995 * epsilon < epsilon_of([Releases(rate, sigma, steps)], 1e-5) <= epsilon
    assert epsilon_of([Releases(rate, sigma * 0.99, steps)], 1e-5) > epsilon
