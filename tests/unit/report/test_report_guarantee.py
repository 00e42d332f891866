"""The privacy statement and the notices: nothing that weakens a guarantee stays unsaid."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from qfed.federation.result import RunResult
from qfed.report import guarantee, units

Make = Callable[..., RunResult]


def titles(result: RunResult) -> list[tuple[str, str]]:
    return [(notice.level, notice.title) for notice in guarantee.notices(result)]


def test_a_good_run_has_no_notice(make_result: Make) -> None:
    assert titles(make_result()) == []


def test_what_is_off_is_an_alarm(make_result: Make) -> None:
    privacy, secagg = ("alarm", "Differential privacy is OFF"), ("alarm", "Secure aggregation is OFF")
    assert titles(make_result(private=False)) == [privacy]
    assert titles(make_result(secagg=False)) == [secagg]
    assert titles(make_result(private=False, secagg=False)) == [privacy, secagg]


def test_a_ledger_past_the_budget_is_an_alarm(make_result: Make) -> None:
    result = make_result()
    over = result.sites[4].model_copy(update={"epsilon": 3.2})
    sites = (*result.sites[:4], over, *result.sites[5:])
    found = guarantee.notices(result.model_copy(update={"sites": sites}))
    assert [notice.title for notice in found] == ["More privacy was spent than budgeted"]
    assert found[0].text == "Epsilon 3.20 was spent; the budget is 3."


def test_a_budget_spent_to_the_last_digit_is_no_alarm(make_result: Make) -> None:
    result = make_result()
    spent = result.privacy.model_copy(update={"epsilon": 3.0000000000001})
    assert titles(result.model_copy(update={"privacy": spent})) == []


def test_a_delta_that_allows_publishing_a_record_is_an_alarm(make_result: Make) -> None:
    result = make_result()
    loose = result.privacy.model_copy(update={"delta": 0.01})
    assert titles(result.model_copy(update={"privacy": loose})) == [("alarm", "Delta is too large for these data")]


def test_a_stopped_run_is_a_caution(make_result: Make) -> None:
    assert titles(make_result(status="stopped")) == [("caution", "The run stopped early")]


@pytest.mark.parametrize(("epsilon", "tier"), [(0.5, "strong"), (1.0, "strong"), (3.0, "reasonable"), (12.0, "weak")])
def test_strength_names_the_tier(epsilon: float, tier: str) -> None:
    assert f"a {tier} guarantee" in guarantee.strength(epsilon, 1e-5)


def test_strength_gives_odds_and_failure_probability() -> None:
    text = guarantee.strength(3.0, 1e-5)
    assert "at most 20.1 times as high" in text  # exp(3) = 20.09, rounded up
    assert "1 in 100,000 at most" in text


@pytest.mark.parametrize("epsilon", [50.0, float("inf")])
def test_an_absurd_epsilon_bounds_nothing(epsilon: float) -> None:
    assert "bounds nothing of practical use" in guarantee.strength(epsilon, 1e-5)


def test_facts_hold_the_whole_statement(make_result: Make) -> None:
    result = make_result()
    told = " ".join(f"{fact.answer} {fact.meaning}" for fact in guarantee.facts(result)).replace(units.NBSP, " ")
    statement = result.privacy
    for text in (
        statement.unit,
        statement.adjacency,
        statement.accountant,
        statement.trust,
        statement.secure_aggregation,
    ):
        assert text in told
    assert "epsilon = 3.00, delta = 1e−5 for the whole run" in told  # noqa: RUF001
    assert "standard deviation 11.27 x 1 " in told
    assert "60 steps, every record enters every step" in told


def test_facts_without_privacy_promise_nothing(make_result: Make) -> None:
    told = " ".join(f"{fact.answer} {fact.meaning}" for fact in guarantee.facts(make_result(private=False)))
    assert "nothing: differential privacy was off" in told
    assert "epsilon =" not in told
