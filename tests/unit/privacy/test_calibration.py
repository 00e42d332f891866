"""What calibrate says is what the plans will do."""

from __future__ import annotations

import math

import pytest

from qfed.config import RunConfig, load_config
from qfed.privacy.calibration import forecast
from qfed.privacy.plan import plan_for


def config(*changes: str) -> RunConfig:
    return load_config(None, ["federation.sites=20", "training.rounds=30", "training.local_steps=1", *changes])


@pytest.mark.parametrize(
    "changes",
    [
        ("privacy.mode=shared",),
        pytest.param(("privacy.mode=shared", "training.sampling_rate=0.3"), marks=pytest.mark.slow),
        ("privacy.mode=local", "training.local_steps=3"),
        ("privacy.mode=site", "training.local_steps=3"),
        ("privacy.mode=local", "privacy.noise_multiplier=40"),
    ],
)
def test_the_chosen_mode_is_the_plan_that_will_run(changes: tuple[str, ...]) -> None:
    asked = config(*changes)
    plan, chosen = plan_for(asked), forecast(asked).chosen
    assert chosen.noise_multiplier == plan.noise_multiplier
    # integer noise is accounted at a delta that is smaller by what its sampler is short of exact
    assert chosen.epsilon == pytest.approx(plan.epsilon(asked.training.rounds), rel=1e-6)
    assert chosen.unit == asked.privacy.unit
    alone = plan.describe().get("epsilon_alone")
    assert chosen.epsilon_alone == (None if alone is None else pytest.approx(alone, rel=1e-6))


def test_the_curve_over_rounds_ends_at_the_budget_where_the_run_ends() -> None:
    found = forecast(config("privacy.mode=shared"))
    own, alone = found.rounds_curves
    at_end = dict(zip(own.x, own.epsilon, strict=True))[30.0]
    assert at_end == pytest.approx(3.0, abs=1e-3)
    assert list(own.epsilon) == sorted(own.epsilon)
    assert all(weaker > e for weaker, e in zip(alone.epsilon, own.epsilon, strict=True))


def test_fewer_shares_are_worth_less_and_n_min_is_worth_the_claim() -> None:
    found = forecast(config("privacy.mode=shared", "privacy.colluders=5"))
    cohort = found.cohort
    assert (cohort.sites, cohort.survivors, cohort.colluders, cohort.honest) == (20, 16, 5, 11)
    left = dict(zip(cohort.left.x, cohort.left.epsilon, strict=True))
    assert left[11.0] == pytest.approx(found.chosen.epsilon)
    assert left[1.0] == pytest.approx(found.chosen.epsilon_alone)
    assert list(cohort.left.epsilon) == sorted(cohort.left.epsilon, reverse=True)
    assert cohort.safe


def test_a_thin_cohort_is_warned_of() -> None:
    found = forecast(config("privacy.mode=shared", "federation.quorum=0.5", "privacy.colluders=3"))
    assert not found.cohort.safe
    assert "less than half" in found.cohort.verdict


def test_a_share_without_allowance_for_drops_would_be_wrong() -> None:
    """The design's figure: 10 sites, 6 of them left, at epsilon 8: a share of 1 / sqrt(10) would cost 10.9."""
    found = forecast(load_config(None, ["privacy.mode=shared", "training.local_steps=1", "privacy.epsilon=8"]))
    left = dict(zip(found.cohort.left.x, found.cohort.left.epsilon, strict=True))
    assert found.cohort.honest == 6
    assert left[6.0] == pytest.approx(8.0, abs=1e-3)
    wrong = forecast(
        load_config(None, ["privacy.mode=local", "training.local_steps=1"]),
        found.chosen.noise_multiplier * math.sqrt(6 / 10),
    )
    assert wrong.chosen.epsilon == pytest.approx(10.9, abs=0.2)


def test_shared_noise_is_smaller_in_the_mean_and_a_person_at_several_sites_pays_more() -> None:
    found = forecast(config("privacy.mode=shared"))
    shared, local, _ = found.modes
    assert shared.noise_multiplier == pytest.approx(local.noise_multiplier)
    assert shared.mean_noise == pytest.approx(local.mean_noise / math.sqrt(found.cohort.honest))
    for curve in found.person_curves:
        assert curve.epsilon[0] == pytest.approx(3.0, abs=1e-3)
        assert list(curve.epsilon) == sorted(curve.epsilon)
