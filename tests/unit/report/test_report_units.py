"""Figures read as they should; epsilon never looks smaller than it is."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qfed.report import units


@given(st.floats(1e-6, 1e6))
def test_epsilon_is_rounded_up_and_by_less_than_a_percent(value: float) -> None:
    shown = Decimal(units.epsilon(value))
    assert shown >= Decimal(value) * (1 - Decimal("1e-8"))
    assert shown <= Decimal(value) * Decimal("1.0101")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3.0, "3.00"),
        (2.9961, "3.00"),
        (3.0004, "3.01"),
        (3.0000000000004, "3.00"),
        (0.7741, "0.775"),
        (12.34, "12.4"),
        (1234.5, "1235"),
        (0.0, "0"),
        (None, "none"),
        (float("inf"), "unbounded"),
    ],
)
def test_epsilon(value: float | None, text: str) -> None:
    assert units.epsilon(value) == text


@pytest.mark.parametrize(("value", "text"), [(1e-5, "1e−5"), (2.5e-6, "2.5e−6"), (0.001, "0.001"), (None, "none")])  # noqa: RUF001
def test_delta(value: float | None, text: str) -> None:
    assert units.delta(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (59_700, "59.7 kB"),
        (999_960, "1 MB"),
        (1_234_500, "1.23 MB"),
        (5e9, "5 GB"),
        (2.5e12, "2500 GB"),
    ],
)
def test_bytes(value: float, text: str) -> None:
    assert units.size(value).replace(units.NBSP, " ") == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.34, "340 ms"),
        (4.21, "4.2 s"),
        (9.96, "10 s"),
        (41.2, "41 s"),
        (119.6, "2 min 0 s"),
        (3599, "59 min 59 s"),
        (7300, "2 h 1 min"),
        (None, "not measured"),
    ],
)
def test_duration(value: float | None, text: str) -> None:
    assert units.duration(value).replace(units.NBSP, " ") == text


def test_scores() -> None:
    assert units.score("accuracy", 0.9474).replace(units.NBSP, " ") == "94.7 %"
    assert [units.score("rmse", v) for v in (11.9, 0.0123456, 12345.6, float("nan"))] == [
        "11.90",
        "0.01235",
        "12,346",
        "not finite",
    ]
