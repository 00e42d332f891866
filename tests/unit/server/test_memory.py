"""What is remembered of an epoch: in order, durable at each step, and nothing of an epoch that was given up."""

from __future__ import annotations

from pathlib import Path

import pytest

from qfed.errors import StateError
from qfed_server.memory import EpochMemory


def test_epochs_have_growing_numbers_whatever_happens(tmp_path: Path) -> None:
    assert EpochMemory(tmp_path).begin(1) == 1
    assert EpochMemory(tmp_path).begin(1) == 2, "killed in the set-up: a site refuses a name that it has seen"
    assert EpochMemory(tmp_path).begin(7) == 7
    assert EpochMemory(tmp_path).begin(5) == 8


def test_an_epoch_is_kept_until_another_one_is_begun(tmp_path: Path) -> None:
    memory = EpochMemory(tmp_path)
    assert memory.epoch() is None
    memory.begin(3)
    assert EpochMemory(tmp_path).epoch() is None, "its set-up was not finished"
    memory.keep(3, [b"epoch"])
    kept = EpochMemory(tmp_path).epoch()
    assert kept is not None
    assert (kept.first_round, kept.bodies) == (3, (b"epoch",))
    memory.begin(4)
    assert EpochMemory(tmp_path).epoch() is None
    memory.keep(4, [b"", b"other"])
    found = EpochMemory(tmp_path).epoch()
    assert found is not None
    assert found.bodies == (b"", b"other")
    memory.give_up()
    assert EpochMemory(tmp_path).epoch() is None, "a round of it failed"
    assert memory.begin(1) == 5


def test_survivors_are_those_of_one_round_of_one_epoch(tmp_path: Path) -> None:
    memory = EpochMemory(tmp_path)
    memory.begin(1)
    memory.keep(1, [b"epoch"])
    memory.fix(2, ["a", "b", "c"])
    again = EpochMemory(tmp_path)
    assert again.survivors(2) == ("a", "b", "c")
    assert again.survivors(3) is None
    again.begin(3)
    assert EpochMemory(tmp_path).survivors(2) is None


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "epoch.json").write_text("{")
    with pytest.raises(StateError, match="start the run anew"):
        EpochMemory(tmp_path)
