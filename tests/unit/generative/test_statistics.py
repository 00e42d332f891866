"""Pair counts: exact ones are the frequencies themselves, noisy ones become valid and mutually consistent."""

from __future__ import annotations

import numpy as np
import pytest

from qfed.errors import ConfigError, DataError, ShapeError
from qfed.generative.release import Release
from qfed.generative.statistics import PairCounts


def some_bits(count: int = 500, n: int = 5, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    hidden = rng.random((count, 1))
    return (rng.random((count, n)) < 0.2 + 0.6 * hidden).astype(np.uint8)


def counted(bits: np.ndarray) -> np.ndarray:
    n = bits.shape[1]
    out = np.zeros((n, n, 2, 2))
    for record in bits:
        for i in range(n):
            for j in range(n):
                out[i, j, record[i], record[j]] += 1
    return out


def check_valid(counts: PairCounts) -> None:
    p = counts.pairs
    assert (p >= 0).all()
    np.testing.assert_allclose(p.sum((2, 3)), 1, atol=1e-12)
    np.testing.assert_allclose(p, p.transpose(1, 0, 3, 2), atol=1e-12)
    margin = p.sum(3)  # P[bit_i = a] as the table of (i, j) has it
    np.testing.assert_allclose(margin, margin[:, :1] + 0 * margin, atol=1e-12)


def test_exact_counts_are_the_frequencies() -> None:
    bits = some_bits()
    counts = PairCounts.exact(bits)
    np.testing.assert_allclose(counts.pairs, counted(bits) / len(bits), atol=1e-12)
    assert counts.records == len(bits)
    assert counts.stddev == 0
    assert counts.privacy["mode"] == "off"
    check_valid(counts)


@pytest.mark.parametrize("half", [False, True])
def test_counts_without_noise_project_to_themselves(half: bool) -> None:
    bits = some_bits()
    table = counted(bits)
    if half:
        table[np.tril_indices(5)] = 0
    projected = PairCounts.of_counts(PairCounts.exact(bits).bits, table, 0.0, {})
    np.testing.assert_allclose(projected.pairs, PairCounts.exact(bits).pairs, atol=1e-12)
    assert projected.records == pytest.approx(len(bits))


@pytest.mark.parametrize("stddev", [1.0, 30.0, 1e4])
def test_noisy_counts_become_valid_and_consistent(stddev: float) -> None:
    rng = np.random.default_rng(3)
    bits = some_bits()
    noisy = counted(bits) + rng.normal(0, stddev, (5, 5, 2, 2))
    check_valid(PairCounts.of_counts(PairCounts.exact(bits).bits, noisy, stddev, {"epsilon": 1.0}))


def test_projection_takes_noise_away() -> None:
    rng = np.random.default_rng(4)
    bits, before, after = some_bits(2000, 8), 0.0, 0.0
    exact = PairCounts.exact(bits).pairs
    off = ~np.eye(8, dtype=bool)
    for _ in range(20):
        noise = rng.normal(0, 40, (8, 8, 2, 2))
        noise[np.tril_indices(8)] = 0
        noisy = np.triu(np.ones((8, 8)), 1)[:, :, None, None] * counted(bits) + noise
        projected = PairCounts.of_counts([str(i) for i in range(8)], noisy, 40, {})
        upper = np.triu(off, 1)
        before += float(((noisy[upper] / 2000 - exact[upper]) ** 2).sum())
        after += float(((projected.pairs[upper] - exact[upper]) ** 2).sum())
    assert after < 0.55 * before


def test_shrinking_keeps_what_noise_cannot_explain() -> None:
    bits = some_bits(4000)
    bits[:, 0] = bits[:, 1]
    exact = PairCounts.exact(bits)
    noisy = PairCounts(exact.bits, exact.pairs, exact.records, 300.0, {})
    cov = noisy.shrunk().correlations - np.outer(exact.means, exact.means)
    assert abs(cov[0, 1]) > 0.5  # far above the noise of 2 x 300 / 4000
    assert abs(cov[2, 3]) < 1e-12
    check_valid(noisy.shrunk())
    assert exact.shrunk() is exact


def test_one_bit_and_a_release_without_records() -> None:
    one = PairCounts.of_counts(["only"], np.array([[[[30.0, 0], [0, 10.0]]]]), 1.0, {})
    assert one.ones[0] == pytest.approx(0.25)
    empty = PairCounts.of_counts(["a", "b"], np.full((2, 2, 2, 2), -3.0), 5.0, {})
    assert empty.records == 1
    check_valid(empty)


def test_wrong_records_are_told() -> None:
    with pytest.raises(ShapeError, match=r"\(N, n\)"):
        PairCounts.exact(np.zeros(3))
    with pytest.raises(DataError, match="0 and 1 only, got 2"):
        PairCounts.exact(np.array([[0, 2]]))
    with pytest.raises(ShapeError, match="got"):
        PairCounts.of_counts(["a"], np.zeros((2, 2, 2, 2)), 0.0, {})


def test_a_release_by_class_comes_back_from_disk(tmp_path) -> None:
    bits = some_bits(300, 4)
    names, patterns = ("a", "b", "c", "y"), np.array([[0], [1]])
    release = Release.exact(bits, names, ("y",), patterns)
    for k in (0, 1):
        part = bits[bits[:, 3] == k][:, :3]
        np.testing.assert_allclose(release.parts[k].pairs, PairCounts.exact(part).pairs)
        joined = release.join(k, part)
        np.testing.assert_array_equal(joined, bits[bits[:, 3] == k])
    release.save(tmp_path)
    again = Release.load(tmp_path)
    assert again.names == names
    assert again.parts[1].bits == ("a", "b", "c")
    np.testing.assert_array_equal(again.parts[1].pairs, release.parts[1].pairs)
    np.testing.assert_allclose(again.weights, [np.mean(bits[:, 3] == 0), np.mean(bits[:, 3] == 1)])
    with pytest.raises(ConfigError, match="expected a folder with statistics"):
        Release.load(tmp_path / "nowhere")
    (tmp_path / "statistics.json").write_text("{}")
    with pytest.raises(ConfigError, match="format=None"):
        Release.load(tmp_path)
