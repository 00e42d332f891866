"""Shares of noise: the sum has what was promised, one unit moves it no further than accounted, nothing wraps."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import chi2

from qfed.errors import ConfigError, LocalProtocolError
from qfed.privacy.discrete import DiscreteGaussian, ripple
from qfed.privacy.grid import GRID_STEPS, greatest_coordinate, sensitivity
from qfed.privacy.shares import Shares


def accepts(noise: np.ndarray, stddev: float) -> bool:
    statistic = float(np.sum((noise / stddev) ** 2))
    return bool(chi2.ppf(1e-6, len(noise)) < statistic < chi2.isf(1e-6, len(noise)))


@pytest.mark.parametrize("survivors", [8, 9, 10])
def test_the_sum_over_the_honest_has_sigma_of_the_sensitivity(survivors: int) -> None:
    """Ten sites, least survivors 8, two of them colluding: the other six and more hold sigma D."""
    size, shares = 20_000, Shares(3.0, 6, 10, 32)
    parts = [shares.hide(np.zeros(size), 0.7) for _ in range(survivors)]
    honest = np.sum(parts[2:8], axis=0)
    wanted = 3.0 * sensitivity(size)
    assert accepts(honest, wanted)
    assert not accepts(honest, wanted * 2 / 3)
    assert not accepts(honest, wanted * 3 / 2)
    everybody = np.sum(parts, axis=0)
    assert accepts(everybody, wanted * math.sqrt(survivors / 6))


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DiscreteGaussian, "sample", lambda self, size: np.zeros(size, np.int64))


@pytest.mark.usefixtures("silent")
@settings(max_examples=200, deadline=None)
@given(
    size=st.integers(1, 200),
    clip=st.floats(1e-3, 1e3),
    others=st.floats(0, 1e4),
    length=st.floats(0, 1),
    seed=st.integers(0, 2**32),
)
def test_one_record_moves_the_integers_no_further_than_accounted(
    size: int, clip: float, others: float, length: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    shares = Shares(2.0, 3, 5, 32)
    rest = rng.normal(size=size) * others * clip
    record = rng.normal(size=size)
    record *= length * clip / max(float(np.linalg.norm(record)), 1e-12)
    moved = shares.hide(rest + record, clip) - shares.hide(rest, clip)
    assert np.linalg.norm(moved) <= sensitivity(size)


@pytest.mark.usefixtures("silent")
def test_the_sensitivity_is_not_far_above_what_happens() -> None:
    # Half a step away from rounding everywhere, so that a tiny move rounds every coordinate over.
    size, shares = 10_000, Shares(2.0, 3, 5, 32)
    rest = np.full(size, 0.4999) / GRID_STEPS
    record = np.full(size, 40.01 / GRID_STEPS)
    moved = shares.hide(rest + record, 1.0) - shares.hide(rest, 1.0)
    assert np.linalg.norm(moved) > np.linalg.norm(record) * GRID_STEPS + 0.98 * math.sqrt(size)


@pytest.mark.parametrize("sites", [3, 10, 100, 4096])
def test_no_sum_wraps_whatever_the_sites_hold(sites: int) -> None:
    shares = Shares(1.0, 2, sites, 32)
    for value in (1e30, -1e30, 1e12, 5.0):
        part = shares.hide(np.full(2000, value), 1.0)
        assert int(np.abs(part).max()) <= shares.greatest
    assert sites * shares.greatest < 2**31
    assert (sites + 1) * (shares.greatest + 1) > 2**31 - 2**13 * sites, "and no more room is given away than needed"


@pytest.mark.usefixtures("silent")
def test_a_small_vector_is_its_nearest_grid_point() -> None:
    values = np.array([0.3, -0.3, 1.0, 0.0, 0.0001])
    part = Shares(1.0, 2, 10, 32).hide(values, 0.5)
    assert np.array_equal(part, np.rint(values * GRID_STEPS / 0.5))


def test_what_has_no_room_or_no_value_is_refused() -> None:
    with pytest.raises(ConfigError, match="the ring has room for"):
        Shares(40.0, 2, 4096, 32).hide(np.zeros(10), 1.0)
    with pytest.raises(LocalProtocolError, match="not finite"):
        Shares(2.0, 2, 10, 32).hide(np.array([np.nan]), 1.0)


def test_what_integers_add_is_negligible_and_counted() -> None:
    shares = Shares(2.0, 6, 10, 32)
    assert 0 < shares.slack(10_000, 1000) < 1e-60
    assert 0 < shares.distance(10_000, 1000) < 1e-24
    assert shares.distance(10_000, 1000) == pytest.approx(1000 * shares.distance(10_000, 1))
    assert greatest_coordinate(10, 32) == (2**31 - 1) // 10


@pytest.mark.parametrize(("smooth", "wide"), [(0.6, 2.0), (0.8, 3.0)])
def test_integer_noise_is_rounded_continuous_noise(smooth: float, wide: float) -> None:
    """The step that lets continuous accounting speak of integers, by quadrature, where its error can be seen."""
    whole = math.hypot(smooth, wide)
    z = np.arange(-60, 61)
    norm = np.exp(-(z**2) / (2 * whole**2)).sum()
    worst = 0.0
    for y in (0, 1, 4):

        def integrand(t: float, y: int = y) -> float:
            rounding = math.exp(-((y - t) ** 2) / (2 * smooth**2)) / np.exp(-((z - t) ** 2) / (2 * smooth**2)).sum()
            return float(math.exp(-(t**2) / (2 * wide**2)) / (wide * math.sqrt(2 * math.pi)) * rounding)

        made = quad(integrand, y - 15, y + 15, limit=400, epsabs=1e-14)[0]
        worst = max(worst, abs(math.log(made / (math.exp(-(y**2) / (2 * whole**2)) / norm))))
    # ripple() states its constant for stddev >= 1; here the whole series is small enough to be bounded by 3 terms.
    bound = 2 * sum(2 * math.exp(-2 * math.pi**2 * smooth**2 * k**2) for k in (1, 2, 3)) * 1.01
    assert worst < bound
    assert ripple(3.0) < 2.0**-254
