"""Epsilon against published values, other accountants and closed forms."""

from __future__ import annotations

import dp_accounting
import mpmath  # type: ignore[import-untyped]
import pytest
from dp_accounting.pld import privacy_loss_distribution as pld
from dp_accounting.rdp.rdp_privacy_accountant import RdpAccountant
from opacus.accountants import PRVAccountant

from qfed.errors import ConfigError
from qfed.privacy.accounting import ADJACENCY, ORDERS, Releases, calibrate, epsilon_of, person_epsilon


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


PLANS = [Releases(0.3, 3.43, 60), Releases(0.01, 1.0, 1000), Releases(0.1, 1.5, 200), Releases(0.5, 5.0, 60)]


def distribution(releases: Releases, grid: float, *, optimistic: bool = False) -> float:
    """Epsilon at 1e-5 by dp-accounting's privacy loss distributions on a grid, from above or from below."""
    once = pld.from_gaussian_mechanism(
        releases.noise_multiplier,
        sampling_prob=releases.sampling_rate,
        pessimistic_estimate=not optimistic,
        value_discretization_interval=grid,
        use_connect_dots=not optimistic,
    )
    return float(once.self_compose(releases.steps).get_epsilon_for_delta(1e-5))


@pytest.mark.parametrize("releases", PLANS, ids=str)
def test_within_a_thousandth_of_the_reference_and_never_below_the_optimistic_bound(releases: Releases) -> None:
    ours = epsilon_of([releases], 1e-5)
    assert ours == pytest.approx(distribution(releases, 1e-4), abs=1e-3)
    assert ours >= distribution(releases, 1e-4, optimistic=True)


def test_several_mechanisms_of_one_plan_are_within_a_thousandth_too() -> None:
    parts = [Releases(0.3, 3.43, 30), Releases(0.1, 1.5, 50), Releases(1.0, 20.0, 10)]
    together = None
    for part in parts:
        once = pld.from_gaussian_mechanism(
            part.noise_multiplier, sampling_prob=part.sampling_rate, value_discretization_interval=1e-4
        ).self_compose(part.steps)
        together = once if together is None else together.compose(once)
    assert together is not None
    assert epsilon_of(parts, 1e-5) == pytest.approx(float(together.get_epsilon_for_delta(1e-5)), abs=1e-3)


@pytest.mark.parametrize(("sigma", "steps"), [(10.77, 60), (1.0, 1), (50.0, 4000)])
def test_zero_concentrated_accounting_of_the_discrete_gaussian_bounds_from_above(sigma: float, steps: int) -> None:
    """The discrete Gaussian is T / (2 sigma^2)-zCDP (Canonne, Kamath, Steinke 2020); the closed form is tighter."""
    accountant = RdpAccountant(ORDERS, ADJACENCY).compose(dp_accounting.ZCDpEvent(steps / (2 * sigma**2)))
    zcdp = float(accountant.get_epsilon(1e-5))
    assert 0.9 * zcdp < epsilon_of([Releases(1.0, sigma, steps)], 1e-5) < zcdp


# -- a person with records at several sites --------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [1.0, 0.2])
@pytest.mark.parametrize("one_sum", [True, False])
def test_a_person_at_one_site_is_one_record_and_more_sites_cost_more(rate: float, one_sum: bool) -> None:
    releases = Releases(rate, 8.0 if rate == 1 else 3.0, 40)
    spent = [person_epsilon(releases, 1e-5, k, one_sum=one_sum) for k in (1, 2, 3)]
    assert spent[0] == epsilon_of([releases], 1e-5)
    assert spent[0] < spent[1] < spent[2]


def test_records_in_one_sum_add_up_and_records_in_several_compose() -> None:
    releases = Releases(1.0, 8.0, 40)
    assert person_epsilon(releases, 1e-5, 3, one_sum=True) == epsilon_of([Releases(1.0, 8.0 / 3, 40)], 1e-5)
    assert person_epsilon(releases, 1e-5, 3, one_sum=False) == epsilon_of([Releases(1.0, 8.0, 120)], 1e-5)


def test_a_sampled_person_costs_between_its_records_composed_and_all_of_them_always_there() -> None:
    """The mixture of Gaussians: two records that enter a step each by a coin of their own."""
    releases = Releases(0.2, 3.0, 40)
    mixture = person_epsilon(releases, 1e-5, 2, one_sum=True)
    assert mixture > person_epsilon(releases, 1e-5, 2, one_sum=False)
    assert mixture < epsilon_of([Releases(0.36, 1.5, 40)], 1e-5), "as if both came whenever one does"


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
