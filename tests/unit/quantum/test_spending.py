"""Counting what a device runs: caps stop before they are passed, and a restart does not forget."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from qfed.config import Price, load_prices
from qfed.errors import ConfigError, SpendingCapReached, StateError
from qfed.quantum.spending import Caps, Meter, Spent, charge, counted_by, current_meter

PRICE = Price(match="far:*", name="Far", per_task=0.3, per_shot=0.001, per_second=2.0, as_of="2025", source="a test")


def test_a_cap_in_shots_stops_before_it_is_passed() -> None:
    meter = Meter("far", caps=Caps(shots=100))
    meter.charge(5, 60)
    with pytest.raises(SpendingCapReached, match=r"60 of the 100 shots .* need 41; .*most_shots"):
        meter.charge(1, 41)
    assert meter.spent() == Spent(5, 60)  # what was refused is not counted
    meter.charge(1, 40)  # to the very cap
    assert meter.spent().shots == 100


def test_a_cap_in_money_counts_tasks_shots_and_seconds() -> None:
    meter = Meter("far", price=PRICE, caps=Caps(price=10.0))
    meter.charge(10, 1000, 1.0)
    assert meter.spent().price == pytest.approx(3 + 1 + 2)
    with pytest.raises(SpendingCapReached, match=r"USD 6\.00 of the USD 10\.00 .* cost USD 4\.30"):
        meter.charge(1, 4000)
    meter.correct(-0.5)
    assert meter.spent() == Spent(10, 1000, 0.5, pytest.approx(5.0))


def test_a_cap_in_seconds_counts_what_was_used_not_what_was_estimated() -> None:
    meter = Meter("annealer", caps=Caps(seconds=1.0), section="synth")
    meter.charge(1, 500, 0.6)
    with pytest.raises(
        SpendingCapReached, match=r"0\.6 of the 1 processor seconds .* about 0\.5; .*synth.most_seconds"
    ):
        meter.charge(1, 500, 0.5)
    meter.correct(-0.2)
    meter.charge(1, 500, 0.5)
    assert meter.spent() == Spent(2, 1000, pytest.approx(0.9))


def test_an_account_survives_a_restart_and_tells_runs_apart(tmp_path: Path) -> None:
    file = tmp_path / "spending.db"
    Meter("far", "a", file=file, caps=Caps(shots=100)).charge(1, 80)
    again = Meter("far", "a", file=file, caps=Caps(shots=100))
    with pytest.raises(SpendingCapReached):
        again.charge(1, 30)
    other = Meter("far", "b", file=file, caps=Caps(shots=100), owner=Caps(shots=150))
    other.charge(1, 70)
    assert (other.spent().shots, other.spent_by_all().shots) == (70, 150)
    with pytest.raises(SpendingCapReached, match="the site may spend"):
        other.charge(1, 1)


def test_a_cap_in_money_without_a_price_is_refused() -> None:
    with pytest.raises(ConfigError, match="price table has no entry"):
        Meter("unheard.of", caps=Caps(price=1.0))
    Meter("default.qubit", caps=Caps(price=1.0), free=True).charge(1, 10**9)


def test_a_broken_account_stops_the_run(tmp_path: Path) -> None:
    file = tmp_path / "spending.db"
    file.write_bytes(b"no database, but long enough to be taken for one" * 10)
    with pytest.raises(StateError, match="nothing was submitted"):
        Meter("far", file=file)


def test_charging_reaches_the_meter_in_use_only() -> None:
    meter, inner = Meter("far"), Meter("near")
    charge(1, 1)
    with counted_by(meter):
        charge(2, 20)
        with counted_by(inner):
            charge(3, 30)
        assert current_meter() is meter
    charge(4, 40)
    assert (meter.spent(), inner.spent(), current_meter()) == (Spent(2, 20), Spent(3, 30), None)


def test_nothing_is_charged_when_the_file_cannot_take_it(tmp_path: Path) -> None:
    file = tmp_path / "spending.db"
    meter = Meter("far", file=file)
    with sqlite3.connect(file) as database:
        database.execute("DROP TABLE spending")
    with pytest.raises(StateError):
        meter.charge(1, 1)


def test_the_shipped_prices_say_when_and_where_they_were_read() -> None:
    table = load_prices()
    assert all(price.as_of and price.source and price.of(1, 1, 1.0) > 0 for price in table.price)
    found = table.price_of("braket.aws.qubit", "arn:aws:braket:us-west-1::device/qpu/rigetti/Ankaa-3")
    assert found is not None
    assert found.of(1, 100) == pytest.approx(0.39)
    assert table.price_of("nobody.knows") is None


def test_a_table_of_ones_own(write: Callable[[str], Path]) -> None:
    good = '[[price]]\nmatch = "ionq.qpu:*"\nname = "IonQ"\nper_shot = 0.01\nas_of = "today"\nsource = "my contract"\n'
    found = load_prices(write(good)).price_of("ionq.qpu")
    assert found is not None
    assert found.of(3, 100) == pytest.approx(1.0)
    with pytest.raises(ConfigError, match=r"price\.0\.per_shot=-1"):
        load_prices(write(good.replace("0.01", "-1")))


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    def to_file(text: str) -> Path:
        file = tmp_path / "prices.toml"
        file.write_text(text, encoding="utf-8")
        return file

    return to_file
