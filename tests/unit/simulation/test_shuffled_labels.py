"""The control of tests/bench/dpzo.py: shuffled labels score as chance does, held-out labels that leak are seen."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from qfed.data import Records, SiteData


def _bench() -> ModuleType:
    """tests/bench/dpzo.py, which imports its neighbours."""
    folder = Path(__file__).parents[2] / "bench"
    spec = importlib.util.spec_from_file_location("dpzo_bench", folder / "dpzo.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["dpzo_bench"] = module
    sys.path.insert(0, str(folder))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(folder))
    return module


bench = _bench()
DIGITS = "digits 0/1"


def leaking(data: Sequence[SiteData], rng: np.random.Generator) -> list[SiteData]:
    """Shuffled, but the held-out records are trained on as well."""
    return [
        SiteData(
            Records(np.concatenate([site.train.x, site.test.x]), np.concatenate([site.train.y, site.test.y])),
            site.test,
            site.name,
        )
        for site in bench.shuffled(data, rng)
    ]


def test_shuffling_keeps_records_and_counts_and_nothing_held_out_is_trained_on(tmp_path: Path) -> None:
    data = bench.sites_of(bench.config_of(DIGITS, tmp_path, 3))
    mixed = bench.shuffled(data, np.random.default_rng(1))
    before, after = (np.concatenate([site.train.y for site in sites]) for sites in (data, mixed))
    assert np.array_equal(np.bincount(before), np.bincount(after))
    assert abs(np.corrcoef(before, after)[0, 1]) < 0.3
    for site, other in zip(data, mixed, strict=True):
        assert np.array_equal(site.train.x, other.train.x)
        assert np.array_equal(site.test.y, other.test.y)
    assert sum(len(site.train) + len(site.test) for site in data) == 360


def test_intervals_are_students_over_permutations() -> None:
    found = bench.Interval.of([1.0, 2.0, 3.0, 4.0])
    assert (found.mean, found.low, found.high) == pytest.approx((2.5, 0.4457, 4.5543), abs=1e-4)
    assert bench.Interval.of([0.0, 0.0, 0.0]) == bench.Interval(0.0, 0.0, 0.0)


def test_the_verdict_is_told_from_the_limits() -> None:
    chance, high = bench.Interval(0.0, -0.05, 0.05), bench.Interval(0.3, 0.2, 0.4)
    below = bench.Interval(-0.3, -0.4, -0.2)
    assert bench.Control(below, chance).verdict == "not above the majority rate beyond noise"
    assert bench.Control(chance, chance).verdict == "not above the majority rate beyond noise"
    assert bench.Control(high, chance).verdict == "above the majority rate beyond noise"
    assert "leak" in bench.Control(below, high).verdict


@pytest.mark.slow
def test_shuffled_labels_score_as_chance_does_and_leaked_ones_do_not(tmp_path: Path) -> None:
    seeds = range(16)
    blind = bench.control(DIGITS, tmp_path, seeds)
    assert abs(blind.informed.mean) < 0.25, "five standard errors of sixteen permutations"
    # About .35 with a standard error of .04: the privacy noise is fresh each time, so there must be room.
    seen = bench.control(DIGITS, tmp_path, seeds, leaking)
    assert seen.informed.low > 0
    assert "leak" in seen.verdict
