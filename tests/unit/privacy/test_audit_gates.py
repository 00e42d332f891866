"""Gates on made-up releases: honest ones pass, each fault is seen by the gate that is meant for it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from qfed.errors import ConfigError
from qfed.privacy.audit import gates
from qfed.privacy.audit.verdict import Gate

SIGMA, RELEASES, NULL, CANARIES = 3.0, 24, 400, 400


def judged(noise: NDArray[np.float64], gain: float = 1.0, rate: float = 1.0, seed: int = 0) -> dict[str, Gate]:
    taken = np.random.default_rng([9, seed]).random((RELEASES, CANARIES)) < rate
    found = (
        gates.noise_level(noise[:, :NULL], SIGMA),
        gates.noise_shape(noise[:, :NULL], SIGMA),
        gates.noise_correlation(noise[:, :NULL]),
        gates.canary_gain(noise[:, NULL:] + gain * taken, SIGMA, rate),
    )
    return {gate.name: gate for gate in found}


def honest(seed: int, sigma: float = SIGMA) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(0, sigma, (RELEASES, NULL + CANARIES))


def failed(found: dict[str, Gate]) -> set[str]:
    return {name for name, gate in found.items() if not gate.passed}


@pytest.mark.parametrize("rate", [1.0, 0.1])
def test_honest_releases_pass(rate: float) -> None:
    alarms = [name for seed in range(300) for name in failed(judged(honest(seed), rate=rate, seed=seed))]
    assert len(alarms) <= 1, "one in ten thousand a gate"


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_another_noise_level_is_seen(factor: float) -> None:
    gate = judged(honest(1, factor * SIGMA))["noise level"]
    assert not gate.passed
    assert abs(gate.value) > 5
    assert np.sign(gate.value) == np.sign(factor - 1)


def test_no_noise_is_seen_and_stays_a_number() -> None:
    found = judged(np.zeros((RELEASES, NULL + CANARIES)))
    assert failed(found) >= {"noise level", "noise shape", "noise correlation"}
    assert all(np.isfinite(gate.value) for gate in found.values())


def test_noise_of_another_shape_is_seen_at_the_right_level() -> None:
    uniform = np.random.default_rng(3).uniform(-1, 1, (RELEASES, NULL + CANARIES)) * SIGMA * 3**0.5
    assert failed(judged(uniform)) == {"noise shape"} or failed(judged(uniform)) == {"noise shape", "noise level"}


@pytest.mark.parametrize("share", [1.0, 0.6])
def test_noise_that_is_used_again_is_seen(share: float) -> None:
    noise = honest(4)
    noise[17] = share * noise[5] + (1 - share**2) ** 0.5 * noise[17]
    assert "noise correlation" in failed(judged(noise))
    noise = honest(4)
    noise[17] = -noise[5]
    assert "noise correlation" in failed(judged(noise)), "also when its sign is turned"


@pytest.mark.parametrize(("gain", "rate"), [(50.0, 1.0), (1.3, 1.0), (0.05, 1.0), (2.0, 0.2), (0.0, 0.2)])
def test_a_gain_that_is_not_one_is_seen(gain: float, rate: float) -> None:
    assert failed(judged(honest(5), gain=gain, rate=rate)) == {"canary gain"}


def test_a_sampler_with_another_rate_is_seen() -> None:
    taken = np.random.default_rng(6).random((RELEASES, CANARIES)) < 0.3
    assert not gates.canary_gain(honest(6)[:, NULL:] + taken, SIGMA, 0.1).passed


def test_charges_and_claims_are_compared() -> None:
    assert gates.charged(3.0, 3.0).passed
    assert not gates.charged(0.2, 3.0).passed
    assert gates.proven(2.9, 3.0).passed
    assert not gates.proven(3.1, 3.0).passed


def test_too_few_coordinates_are_told() -> None:
    with pytest.raises(ConfigError, match="more canaries"):
        gates.noise_level(np.zeros((10, 3)), 1.0)


def test_a_value_that_is_not_a_number_does_not_pass() -> None:
    assert not Gate("g", float("nan"), None, 1.0, "").passed
