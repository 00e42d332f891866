"""The privacy statement of each mode: unit, adjacency, figures, whom it trusts, what it leaves out."""

from __future__ import annotations

import pytest

from qfed.config import load_config
from qfed.federation.result import PrivacyStatement
from qfed.federation.statement import Spending, privacy_statement

SPENT = Spending(noise_multiplier=20.0, epsilon=2.9961, epsilon_alone=6.2309, sampling_distance=3e-29)
EXACT = "exact totals over the cohort"


def statement(*changes: str, spent: Spending = SPENT) -> PrivacyStatement:
    return privacy_statement(load_config(None, list(changes)), 40, spent)


def test_shared_names_the_group_that_is_trusted_and_what_is_left_without_it() -> None:
    said = statement()
    assert (said.mode, said.unit, said.honest, said.epsilon_alone) == ("shared", "one record of one site", 6, 6.2309)
    assert said.adjacency.startswith("zero-out: one record's contribution")
    assert "at least 8 sites, of which at most 2 may work with the aggregator" in said.trust
    assert "the noise of the other 6 is what protects" in said.trust
    assert said.trust.endswith("a site's own noise would still give epsilon 6.24"), "rounded up"
    assert "for integer noise" in said.accountant
    assert any(EXACT in item for item in said.not_covered)
    assert "record counts: the aggregator sees the total of held-out records over the cohort" in said.not_covered


def test_local_trusts_nobody() -> None:
    said = statement("privacy.mode=local", spent=Spending(11.0, 2.9961))
    assert (said.honest, said.epsilon_alone, said.sampling_distance) == (None, None, None)
    assert said.trust.startswith("nobody but the site itself")
    assert "integer" not in said.accountant
    assert "record counts: the aggregator sees the total of records over the cohort" in said.not_covered


def test_site_is_a_promise_about_sites() -> None:
    said = statement("privacy.mode=site", "federation.sites=60", "training.local_steps=3", "training.sampling_rate=0.5")
    assert said.unit.startswith("everything that one site contributes")
    assert said.adjacency.startswith("zero-out: one site's update")
    assert "closed form" in said.accountant, "sites are not sampled, whatever sites do with their records"
    assert said.steps == 120
    assert any("runs that protect single records" in item for item in said.not_covered)
    assert not any("several records" in item for item in said.not_covered)


def test_sampling_changes_the_accountant() -> None:
    assert "PLD" in statement("training.sampling_rate=0.5").accountant


def test_noised_scores_are_told_as_such() -> None:
    noised = Spending(20.0, 2.9961, 6.2309, 3e-29, metrics_epsilon=2.991)
    said = statement("privacy.private_metrics=true", spent=noised)
    assert said.metrics_epsilon == 2.991
    assert any("epsilon 3.00 for the held-out records" in item for item in said.not_covered)
    assert not any(EXACT in item for item in said.not_covered)


def test_off_promises_nothing() -> None:
    said = statement("privacy.mode=off", spent=Spending())
    assert (said.unit, said.adjacency, said.accountant, said.epsilon, said.delta) == (
        "nothing", "none", "none", None, None,
    )  # fmt: skip
    assert said.not_covered[0].startswith("everything")


@pytest.mark.parametrize("mode", ["shared", "local", "site", "off"])
def test_every_mode_says_what_the_aggregator_sees(mode: str) -> None:
    said = statement(f"privacy.mode={mode}", "federation.sites=60", spent=Spending())
    assert said.secure_aggregation.startswith("masked with a committee's keys")
    assert any("comparison runs" in item for item in said.not_covered)
