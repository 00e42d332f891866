"""Pair counts: their sensitivity over every record there can be, what they open to, and the plan that releases them."""

from __future__ import annotations

import logging
import math
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import chi2

from qfed.config import RunConfig, replace
from qfed.errors import BudgetExhausted, ConfigError, LocalProtocolError, PolicyRefused, ShapeError
from qfed.privacy.grid import GRID_STEPS, sensitivity, share_stddev
from qfed.privacy.ledger import Ledger, Limits
from qfed.privacy.moments import Moments, exclusive
from qfed.privacy.plan import CountsPlan, counts_plan_for

THERMOMETER, ONEHOT = np.tri(4, 3, -1, dtype=np.uint8), np.eye(3, dtype=np.uint8)
WHOLE = Moments(6)
CLASSES = Moments(6, (5,), ((0,), (1,)))
CODED = Moments(8, (6, 7), ((0, 0), (0, 1), (1, 1)), exclusive([(0, THERMOMETER), (3, ONEHOT)]))


def every(moments: Moments) -> np.ndarray:
    """Every record that there can be: all patterns of the counted bits, in each class."""
    free = np.array(list(product((0, 1), repeat=len(moments.free))), np.uint8)
    blocks = []
    for pattern in moments.patterns:
        block = np.zeros((len(free), moments.width), np.uint8)
        block[:, list(moments.free)] = free
        block[:, list(moments.fixed)] = pattern
        blocks.append(block)
    return np.concatenate(blocks)


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("moments", [WHOLE, CLASSES, CODED, Moments(1), Moments(2), Moments(9)])
def test_every_record_there_can_be_moves_the_sums_by_the_same_length(moments: Moments, weighted: bool) -> None:
    moments = Moments(moments.width, moments.fixed, moments.patterns, moments.impossible, weighted)
    records = every(moments)
    nothing = moments.sums(records[:0])
    np.testing.assert_array_equal(nothing, np.zeros(moments.size))
    moved = np.array([np.linalg.norm(moments.sums(record[None])) for record in records])
    np.testing.assert_allclose(moved, moments.norm, rtol=1e-12)
    assert moments.norm**2 == pytest.approx(
        sum(w**2 * k for w, k in zip(moments.weights, (1, len(moments.free), len(moments._pairs[0])), strict=True))
    )
    # The encoded sums move by no more than the noise is made for, whichever records are there already.
    rng = np.random.default_rng(0)
    others = moments.sums(records[rng.integers(0, len(records), 300)]) * (GRID_STEPS / moments.norm)
    for record in records[:: max(1, len(records) // 64)]:
        one = moments.sums(record[None]) * (GRID_STEPS / moments.norm)
        assert np.linalg.norm(np.rint(others + one) - np.rint(others)) <= sensitivity(moments.size)


@pytest.mark.parametrize("weighted", [True, False])
def test_the_sums_open_to_the_tables(weighted: bool) -> None:
    rng = np.random.default_rng(1)
    above, hot, kind = rng.integers(0, 4, 400), rng.integers(0, 3, 400), rng.integers(0, 3, 400)
    words = np.array(CODED.patterns, np.uint8)
    bits = np.concatenate([THERMOMETER[above], ONEHOT[hot], words[kind]], axis=1)
    moments = Moments(CODED.width, CODED.fixed, CODED.patterns, CODED.impossible, weighted)
    assert moments.block == 1 + 6 + 9, "the six pairs within one column's code are not counted"
    for number, opened in enumerate(moments.opened(moments.sums(bits))):
        spins = 1 - 2 * bits[kind == number][:, :6].astype(float)
        assert opened.records == pytest.approx(len(spins))
        np.testing.assert_allclose(opened.spins, spins.sum(0), atol=1e-9)
        np.testing.assert_allclose(opened.products, spins.T @ spins, atol=1e-9)


def test_the_weights_make_the_error_of_all_tables_least() -> None:
    """Against the same vector with other weights: total variance of all cells of all tables, for one sensitivity."""

    def error(w0: float, w1: float, w2: float) -> float:
        length = w0**2 + n * w1**2 + pairs * w2**2
        return length * (pairs / w0**2 + n * (n - 1) / w1**2 + pairs / w2**2) / 4

    n = 16
    pairs = n * (n - 1) // 2
    best = error(*Moments(n).weights)
    cells = pairs * 4 * Moments(n).deviations(Moments(n).norm).cell ** 2
    assert best == pytest.approx(cells)
    assert best < 0.6 * error(1, 1, 1), "what the weights are for"
    rng = np.random.default_rng(0)
    assert all(best <= error(*np.exp(rng.normal(0, 0.5, 3))) * (1 + 1e-12) for _ in range(200))


def test_moments_of_signs_cost_a_quarter_of_moments_of_bits() -> None:
    """The cell N[0, 0] from sums of b and b b', at the same number of sums: four whole noises, not four quarters."""
    n = 10
    plain = Moments(n, weighted=False)
    of_bits = math.sqrt(1 + n + n * (n - 1) / 2) * math.sqrt(4)
    assert plain.deviations(plain.norm).cell == pytest.approx(of_bits / 4)


def config(*changes: tuple[str, Any]) -> RunConfig:
    return replace(
        RunConfig(), {"federation.sites": 5, "privacy.colluders": 1, "federation.quorum": 0.8, **dict(changes)}
    )


def plan(mode: str = "shared", moments: Moments = CLASSES) -> CountsPlan:
    return counts_plan_for(config(("privacy.mode", mode)), moments)


@pytest.fixture
def ledger(tmp_path: Path) -> Any:
    book = Ledger(tmp_path / "ledger.db", Limits(3.0, 1e-5), durable=False)
    yield book
    book.close()


def release(plan: CountsPlan, ledger: Ledger | None, bits: np.ndarray, run: str = "r", asked: bytes = b"") -> Any:
    return plan.release(lambda: bits, asked=asked, ledger=ledger, dataset="d", run=run, round=1)


@pytest.mark.parametrize("mode", ["shared", "local"])
def test_a_part_carries_its_share_of_the_noise(mode: str, tmp_path: Path) -> None:
    moments = Moments(40)
    made = plan(mode, moments)
    assert made.shares is not None
    book = Ledger(tmp_path / "l.db", Limits(3.0, 1e-5), durable=False)
    part = release(made, book, np.zeros((0, 40), np.uint8))
    book.close()
    honest = 3 if mode == "shared" else 1
    stddev = share_stddev(made.shares.noise_multiplier, honest, moments.size)
    assert stddev >= made.shares.noise_multiplier * GRID_STEPS / math.sqrt(honest)

    def accepts(stddev: float) -> bool:
        statistic = float(np.sum((part / stddev) ** 2))
        return bool(chi2.ppf(1e-6, len(part)) < statistic < chi2.isf(1e-6, len(part)))

    assert accepts(stddev)
    assert not accepts(stddev * 2 / 3)
    assert not accepts(stddev * 3 / 2)


def test_the_budget_is_met_and_told_as_it_is_charged(ledger: Ledger) -> None:
    made = plan()
    release(made, ledger, every(CLASSES))
    told = made.describe()
    assert 2.99 < (made.epsilon() or 0) <= 3.0
    assert told["epsilon"] == made.epsilon() == pytest.approx(ledger.spent("d"), rel=1e-6)
    assert (told["honest"], told["clip_norm"], told["adjacency"]) == (3, CLASSES.norm, "add or remove")
    assert (made.alone() or 0) > 3.0
    assert plan("local").describe()["epsilon_alone"] is None
    assert [(row.what, row.kind, row.planned_rounds) for row in ledger.rows()] == [
        ("open", "synthesize", 1), ("reserve", "synthesize", 1), ("settle", "synthesize", 1),
    ]  # fmt: skip
    assert all(row.reply is None for row in ledger.rows())


def test_the_charge_comes_before_the_records_and_only_once(ledger: Ledger) -> None:
    made, read = plan(), []

    def broken() -> np.ndarray:
        assert [row.what for row in ledger.rows()] == ["open", "reserve"], "charged before the records are read"
        read.append(1)
        raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        made.release(broken, asked=b"", ledger=ledger, dataset="d", run="r", round=1)
    with pytest.raises(PolicyRefused, match="was charged and cut off; it stays charged"):
        release(made, ledger, every(CLASSES))
    with pytest.raises(PolicyRefused, match="charged for another request"):
        release(made, ledger, every(CLASSES), asked=b"another coding")
    with pytest.raises(BudgetExhausted):
        release(made, ledger, every(CLASSES), run="s")
    assert read == [1]
    assert [row.what for row in ledger.rows()] == ["open", "reserve"]


def test_without_privacy_counts_are_exact_whole_numbers_and_charge_nothing(ledger: Ledger) -> None:
    moments = Moments(6, (5,), ((0,), (1,)), (), weighted=False)
    made = plan("off", moments)
    assert (made.epsilon(), made.alone(), made.noise_multiplier) == (None, None, None)
    bits = every(moments)[::3]
    np.testing.assert_array_equal(release(made, None, bits), moments.sums(bits))
    with pytest.raises(LocalProtocolError, match="charges no ledger"):
        release(made, ledger, bits)
    with pytest.raises(LocalProtocolError, match="none was given"):
        release(plan(), None, bits)


def test_more_records_than_the_ring_holds_are_told_at_the_site(
    ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    made = counts_plan_for(config(("federation.sites", 4096), ("privacy.colluders", 800)), WHOLE)
    with caplog.at_level(logging.WARNING, "qfed.privacy"):
        release(made, ledger, np.zeros((500, 6), np.uint8))
    assert "more records than the ring" in caplog.text


def test_what_cannot_be_released_is_refused() -> None:
    with pytest.raises(ConfigError, match="mode shared or local"):
        counts_plan_for(config(("privacy.mode", "site"), ("privacy.few_sites", True)), WHOLE)
    with pytest.raises(ConfigError, match=r"noise_multiplier=0\.5 spends epsilon"):
        counts_plan_for(config(("privacy.noise_multiplier", 0.5)), WHOLE)
    with pytest.raises(ShapeError, match="of none of the 2 classes"):
        Moments(3, (1, 2), ((0, 0), (1, 1))).sums(np.array([[0, 1, 0]], np.uint8))
    with pytest.raises(ShapeError, match="6 bits"):
        WHOLE.sums(np.zeros((3, 5), np.uint8))
    with pytest.raises(ShapeError, match="a release of these counts"):
        WHOLE.opened(np.zeros(3))
