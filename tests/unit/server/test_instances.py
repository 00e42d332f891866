"""Two agents of one site: noticed when the one that was replaced speaks again, forgotten when one is left."""

from __future__ import annotations

import pytest

from qfed_server.instances import GRACE, QUIET, Instances

KEY, OTHER = b"key", b"other"


@pytest.fixture
def told() -> list[tuple[bytes, bool]]:
    return []


@pytest.fixture
def instances(told: list[tuple[bytes, bool]]) -> Instances:
    return Instances(lambda key, doubled: told.append((key, doubled)))


def test_an_agent_that_is_started_anew_is_the_only_one(instances: Instances, told: list[tuple[bytes, bool]]) -> None:
    assert instances.spoke(KEY, "a", 0.0, login=True)
    assert instances.spoke(KEY, "a", 5.0, login=False)
    assert instances.spoke(KEY, "b", 6.0, login=True), "killed, and started again"
    assert instances.spoke(KEY, "a", 6.0 + GRACE, login=False), "its last request was on the way still"
    assert instances.spoke(KEY, "b", 30.0, login=False)
    assert instances.spoke(KEY, "c", 31.0, login=True)
    assert instances.spoke(OTHER, "a", 40.0, login=True), "another site is another matter"
    assert told == []


def test_one_that_was_replaced_and_speaks_again_is_a_second_one(
    instances: Instances, told: list[tuple[bytes, bool]]
) -> None:
    instances.spoke(KEY, "a", 0.0, login=True)
    instances.spoke(KEY, "b", 10.0, login=True)
    assert not instances.spoke(KEY, "a", 10.1 + GRACE, login=False)
    assert instances.doubled(KEY)
    assert not instances.spoke(KEY, "b", 15.0, login=False)
    assert not instances.spoke(KEY, "a", 20.0, login=True)
    assert not instances.spoke(KEY, "b", 15.0 + QUIET - 1, login=True)
    assert instances.spoke(KEY, "b", 20.0 + QUIET, login=True), "the other has been silent for long enough"
    assert instances.spoke(KEY, "b", 21.0 + QUIET, login=False)
    assert told == [(KEY, True), (KEY, False)]
    assert not instances.doubled(KEY)


def test_a_server_that_was_started_anew_learns_it_from_polls(instances: Instances) -> None:
    """No login is seen: agents go on polling."""
    assert instances.spoke(KEY, "a", 0.0, login=False)
    assert instances.spoke(KEY, "b", 0.5, login=False)
    assert instances.spoke(KEY, "a", 1.0, login=False)
    assert not instances.spoke(KEY, "b", 0.6 + GRACE, login=False)


def test_agents_that_take_the_place_of_each_other_again_and_again_are_two(instances: Instances) -> None:
    for at in (0.0, 1.0, 2.0):
        instances.spoke(KEY, "a", at, login=True)
        instances.spoke(KEY, "b", at + 0.5, login=True)
    assert instances.spoke(KEY, "a", 3.0, login=False)
    assert not instances.spoke(KEY, "a", 2.6 + GRACE, login=False)
