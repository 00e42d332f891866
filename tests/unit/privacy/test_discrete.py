"""Integer noise has the distribution it is accounted as: accepted at sigma, refused at 2/3 and 3/2 of it."""

from __future__ import annotations

from collections.abc import Callable

import mpmath  # type: ignore[import-untyped]
import numpy as np
import pytest
from scipy.stats import chi2

from qfed.errors import ConfigError
from qfed.privacy.discrete import DiscreteGaussian, discrete_gaussian, ripple, split, table_of

Sample = Callable[[int], np.ndarray]


def probabilities(stddev: float, reach: int) -> np.ndarray:
    """P[Y = y] for y = -reach .. reach; the sum beyond is far below a double's last digit."""
    y = np.arange(-reach, reach + 1)
    weights = np.exp(-(y**2) / (2 * stddev**2))
    return np.asarray(weights / weights.sum())


def accepts(samples: np.ndarray, stddev: float) -> bool:
    """A chi-square test of the counts, at 1e-6, on cells that expect 20 samples or more."""
    reach = int(12 * stddev) + 1
    expected = probabilities(stddev, reach) * len(samples)
    inside = np.abs(samples) <= reach
    counts = np.bincount(samples[inside] + reach, minlength=2 * reach + 1).astype(float)
    enough = expected >= 20
    rest = len(samples) - counts[enough].sum(), len(samples) - expected[enough].sum()
    statistic = ((counts[enough] - expected[enough]) ** 2 / expected[enough]).sum()
    statistic += (rest[0] - rest[1]) ** 2 / max(rest[1], 1.0)
    return bool(statistic < chi2.isf(1e-6, int(enough.sum())))


def variance_fits(samples: np.ndarray, stddev: float) -> bool:
    statistic = float((samples.astype(float) ** 2).sum()) / stddev**2
    return bool(chi2.ppf(1e-6, len(samples)) < statistic < chi2.isf(1e-6, len(samples)))


def in_two_parts(stddev: float, factor: int) -> DiscreteGaussian:
    return DiscreteGaussian(stddev, split(stddev, factor))


@pytest.mark.parametrize(
    "noise",
    [discrete_gaussian(1.0), discrete_gaussian(3.7), discrete_gaussian(40.0), in_two_parts(40.0, 4)],
    ids=["1", "3.7", "40", "40 in two parts"],
)
def test_counts_accept_the_distribution_and_no_other(noise: DiscreteGaussian) -> None:
    samples = noise.sample(200_000)
    assert accepts(samples, noise.stddev)
    assert not accepts(samples, noise.stddev * 2 / 3)
    assert not accepts(samples, noise.stddev * 3 / 2)


@pytest.mark.parametrize("stddev", [5.0, 2000.0, 3000.0, 1e4, 6.7e4, 1e7])
def test_moments_accept_sigma_and_refuse_others(stddev: float) -> None:
    samples = discrete_gaussian(stddev).sample(100_000)
    assert abs(samples.mean()) < 6 * stddev / np.sqrt(len(samples))
    assert variance_fits(samples, stddev)
    assert not variance_fits(samples, stddev * 2 / 3)
    assert not variance_fits(samples, stddev * 3 / 2)
    fourth = float(((samples / stddev) ** 4).mean())
    assert fourth == pytest.approx(3.0, abs=6 * np.sqrt(96 / len(samples)))


def test_a_table_is_within_its_stated_distance() -> None:
    table = table_of(4.3)
    mpmath.mp.prec = 400
    weights = [mpmath.exp(-(mpmath.mpf(k) ** 2) / (2 * mpmath.mpf(4.3) ** 2)) * (2 if k else 1) for k in range(300)]
    total, true, error, before = mpmath.fsum(weights), mpmath.mpf(0), mpmath.mpf(0), 0
    for k, weight in enumerate(weights):
        true = weight / total
        bound = (int(table.high[k]) << 64 | int(table.low[k])) if k <= table.reach else 2**127
        error += abs(mpmath.mpf(bound - before) / 2**127 - true)
        before = bound
    assert float(error / 2) <= table.distance
    assert table.distance < 2.0**-119
    assert float(error) > 0, "the comparison must be able to see an error"


def test_two_parts_are_within_their_stated_distance() -> None:
    # The convolution in 600 bits against the distribution itself.
    factor = 2
    (_, coarse), (_, fine) = split(12.0, factor)
    mpmath.mp.prec = 600
    stddev = mpmath.sqrt(factor**2 * mpmath.mpf(coarse.stddev) ** 2 + mpmath.mpf(fine.stddev) ** 2)
    assert 12 <= stddev < 12 * (1 + 1e-14)

    def density(s: mpmath.mpf, y: int) -> mpmath.mpf:
        return mpmath.exp(-(mpmath.mpf(y) ** 2) / (2 * mpmath.mpf(s) ** 2))

    reach = 160
    norms = [mpmath.fsum(density(t.stddev, y) for y in range(-400, 401)) for t in (coarse, fine)]
    whole = mpmath.fsum(density(stddev, y) for y in range(-400, 401))
    worst = mpmath.mpf(0)
    for y in (-40, -13, -1, 0, 1, 2, 7, 25):
        made = mpmath.fsum(
            density(coarse.stddev, a) * density(fine.stddev, y - factor * a) for a in range(-reach, reach)
        )
        ratio = made / (norms[0] * norms[1]) / (density(stddev, y) / whole)
        worst = max(worst, abs(mpmath.log(ratio)))
    bound = ripple(coarse.stddev * fine.stddev / float(stddev))
    assert 1e-3 * bound < float(worst) < bound


def test_words_at_a_boundary_are_decided_by_more_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    table = table_of(3.0)
    at = 4
    word = (table.high[at : at + 1] << np.uint64(1)).astype(np.uint64)
    for more, expected in ((int(table.low[at]) - 1, at), (int(table.low[at]), at + 1)):
        monkeypatch.setattr(
            "qfed.privacy.discrete._words", lambda size, more=more: iter([(0, np.full(size, more, dtype=np.uint64))])
        )
        assert table.of_words(word).tolist() == [expected]


@pytest.mark.parametrize("stddev", [1.0, 17.0, 2048.0])
def test_every_word_is_inverted_as_by_binary_search(stddev: float) -> None:
    table = table_of(stddev)
    rng = np.random.default_rng(1)
    words = np.concatenate([
        rng.integers(0, 2**64, 20_000, dtype=np.uint64),
        np.array([0, 1, 2**64 - 1, 2**64 - 2], dtype=np.uint64),
        np.uint64(2**64 - 1) - rng.integers(0, 2**44, 2_000, dtype=np.uint64),
    ])  # fmt: skip
    found = np.abs(table.of_words(words))
    least, most = (np.searchsorted(table.high, words >> np.uint64(1), side=side) for side in ("left", "right"))
    assert (least <= found).all()
    assert (found <= most).all()
    assert (least == most).mean() > 0.9, "ties, which more bits decide, are rare"
    assert found.max() <= table.reach


def test_samples_are_new_each_time_and_do_not_listen_to_seeds() -> None:
    noise = discrete_gaussian(100.0)
    np.random.seed(1)
    first = noise.sample(50_000)
    np.random.seed(1)
    second = noise.sample(50_000)
    assert abs(np.corrcoef(first, second)[0, 1]) < 6 / np.sqrt(50_000)


@pytest.mark.parametrize("stddev", [0.5, 2e9, float("nan")])
def test_a_stddev_that_cannot_be_is_refused(stddev: float) -> None:
    with pytest.raises(ConfigError, match="grid steps"):
        discrete_gaussian(stddev)
