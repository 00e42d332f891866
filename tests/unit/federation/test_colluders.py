"""How many sites may work with the aggregator: the default fits every roster, and what cannot be held is refused."""

from __future__ import annotations

import pytest

from qfed.config import RunConfig, load_config
from qfed.errors import ConfigError
from qfed.federation.contribution import policy_of
from qfed.federation.statement import Spending, privacy_statement
from qfed.privacy.plan import plan_for


def config(sites: int, *changes: str) -> RunConfig:
    return load_config(None, [f"federation.sites={sites}", *changes])


@pytest.mark.parametrize(
    ("sites", "colluders"), [(3, 1), (4, 1), (10, 2), (32, 6), (33, 3), (100, 10), (1000, 103), (4096, 421)]
)
def test_the_default_is_a_fifth_or_what_the_committee_withstands(sites: int, colluders: int) -> None:
    asked = config(sites)
    policy = policy_of(asked, "lab")
    assert asked.colluders == colluders
    assert asked.honest == asked.federation.least_survivors - colluders
    assert policy.withstands(sites) >= colluders == max(1, min(sites // 5, policy.withstands(sites)))


@pytest.mark.parametrize("sites", [3, 10, 32, 33, 100, 1000])
@pytest.mark.parametrize("quorum", [0.3, 0.5, 0.67, 1.0])
def test_no_quorum_makes_the_default_one_that_is_refused(sites: int, quorum: float) -> None:
    asked = config(sites, f"federation.quorum={quorum}")
    assert policy_of(asked, "lab").withstands(sites) >= asked.colluders >= max(1, sites // 10 if sites > 32 else 1)
    assert asked.honest >= 2


def test_a_committee_of_ones_own_lowers_the_default_and_no_more() -> None:
    asked = config(100, "secagg.committee_size=9")
    assert policy_of(asked, "lab").colluders == asked.colluders == 4
    assert policy_of(config(10, "secagg.recoverable_drops=4"), "lab").withstands(10) == 1
    assert config(10, "secagg.recoverable_drops=4").colluders == 1


@pytest.mark.parametrize(("sites", "colluders", "committee"), [(33, 6, 11), (100, 20, 39), (1000, 200, 175)])
def test_more_than_the_usual_committee_withstands_takes_a_larger_one(
    sites: int, colluders: int, committee: int
) -> None:
    policy = policy_of(config(sites, f"privacy.colluders={colluders}"), "lab")
    assert policy.committee_size == committee > policy_of(config(sites), "lab").committee_size
    assert policy.withstands(sites) >= colluders


@pytest.mark.parametrize(
    ("sites", "changes", "told"),
    [
        (10, ["privacy.colluders=6"], "privacy.colluders=6, but .* sites=10 withstands 5 .* use fewer colluders"),
        (100, ["privacy.colluders=60"], "no committee of sites=100 withstands 60 .* use fewer colluders"),
        (100, ["privacy.colluders=20", "secagg.committee_size=19"], r"withstands 10 with secagg.committee_size=19"),
        (10, ["privacy.colluders=7"], "privacy.colluders=7 leave 1 whose noise counts"),
    ],
)
def test_what_cannot_be_held_is_refused(sites: int, changes: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        policy_of(config(sites, *changes), "lab")


def test_the_statement_says_what_was_assumed() -> None:
    few, many = (privacy_statement(config(sites), 40, Spending()).trust for sites in (100, 1000))
    assert "at least 80 sites, of which at most 10 may work with the aggregator" in few
    assert "2^-40" not in few, "ten that are all on the committee are withstood"
    assert "at least 800 sites, of which at most 103 may work with the aggregator" in many
    assert "a committee of 71 sites" in many
    assert "a chance below 2^-40 an epoch, which delta leaves out" in many


def test_the_noise_is_shared_among_as_many_as_are_left() -> None:
    assert plan_for(config(100)).shares.honest == 70  # type: ignore[union-attr]
