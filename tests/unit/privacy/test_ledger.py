"""The ledger: charged before, never under-counted, append-only, and a plan that fits its budget runs to its end."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from qfed.errors import BudgetExhausted, PolicyRefused, StateError
from qfed.privacy.accounting import Releases, calibrate, epsilon_of
from qfed.privacy.ledger import Ledger, Limits

DELTA = 1e-5


def charge(
    book: Ledger, releases: Releases, *, run: str = "r", round: int = 1, planned: int = 10, dataset: str = "d"
) -> None:
    book.settle(book.reserve(dataset, run, round, releases, planned_rounds=planned, request=b"asked"))


@pytest.fixture
def book(tmp_path: Path) -> Ledger:
    book = Ledger(tmp_path / "ledger.db", Limits(3.0, DELTA))
    yield book  # type: ignore[misc]
    book.close()


@pytest.mark.parametrize("rate", [1.0, 0.1])
def test_a_calibrated_plan_runs_all_its_rounds_and_not_one_more(book: Ledger, rate: float) -> None:
    releases = Releases(rate, calibrate(3.0, DELTA, rate, 40), 4)
    for number in range(1, 11):
        charge(book, releases, round=number)
    assert 2.98 < book.spent("d") <= 3.0
    with pytest.raises(BudgetExhausted, match="10 rounds of its plan"):
        charge(book, releases, round=11)


def test_a_plan_that_does_not_fit_is_refused_in_its_first_round(book: Ledger) -> None:
    releases = Releases(1.0, calibrate(3.0, DELTA, 1.0, 40), 4)
    with pytest.raises(BudgetExhausted, match=r"budget of epsilon=3.*would take it to 3\.\d"):
        charge(book, releases, planned=12)
    assert book.entries() == ()


@pytest.mark.parametrize("rate", [1.0, 0.1])
def test_a_second_run_is_refused_when_the_total_would_pass_the_budget(book: Ledger, rate: float) -> None:
    releases = Releases(rate, calibrate(2.5, DELTA, rate, 40), 4)
    for number in range(1, 11):
        charge(book, releases, round=number)
    with pytest.raises(BudgetExhausted, match="run=other"):
        charge(book, releases, run="other")
    small = Releases(rate, 30.0, 1)
    charge(book, small, run="small", planned=1)
    assert book.spent("d") <= 3.0


def test_two_runs_cost_at_least_what_they_cost_together(book: Ledger) -> None:
    releases = Releases(0.1, 8.0, 4)
    charge(book, releases, run="one", planned=1)
    charge(book, releases, run="two", planned=1)
    assert book.spent("d") >= epsilon_of([releases, releases], DELTA)


def test_data_sets_have_budgets_of_their_own(book: Ledger) -> None:
    releases = Releases(1.0, calibrate(3.0, DELTA, 1.0, 4), 4)
    charge(book, releases, planned=1, dataset="one")
    charge(book, releases, planned=1, dataset="two")
    assert book.spent("one") == book.spent("two") > 2.9
    assert book.spent("three") == 0.0


def test_a_round_is_charged_once(book: Ledger) -> None:
    releases = Releases(1.0, 30.0, 4)
    charge(book, releases)
    with pytest.raises(PolicyRefused, match="is over"):
        charge(book, releases)
    book.reserve("d", "r", 2, releases, planned_rounds=10, request=b"asked")
    with pytest.raises(PolicyRefused, match="cut off"):
        charge(book, releases, round=2)
    with pytest.raises(PolicyRefused, match="another request"):
        book.reserve("d", "r", 2, releases, planned_rounds=10, request=b"another model")


def test_a_run_cannot_change_its_plan(book: Ledger) -> None:
    charge(book, Releases(1.0, 30.0, 4))
    for releases, planned in ((Releases(1.0, 29.0, 4), 10), (Releases(1.0, 30.0, 5), 10), (Releases(1.0, 30.0, 4), 11)):
        with pytest.raises(PolicyRefused, match="fixed when its run starts"):
            charge(book, releases, round=2, planned=planned)


def test_rows_cannot_be_changed_and_an_edited_file_is_noticed(book: Ledger) -> None:
    for number in (1, 2):
        charge(book, Releases(1.0, 30.0, 4), round=number)
    assert book.verify() == 4
    raw = sqlite3.connect(book.path)
    for statement in ("UPDATE entry SET steps = 0", "DELETE FROM entry"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            raw.execute(statement)
    raw.execute("DROP TRIGGER no_update")
    raw.execute("UPDATE entry SET noise_multiplier = 300 WHERE id = 1")
    raw.commit()
    raw.close()
    with pytest.raises(StateError, match="row 1"):
        book.verify()


def test_a_file_that_is_no_ledger_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.db").write_text("these are my notes, and quite a lot of them, dear reader")
    with pytest.raises(StateError, match="not a privacy ledger"):
        Ledger(tmp_path / "notes.db", Limits(3.0, DELTA))
    assert (tmp_path / "notes.db").read_text().startswith("these are my notes")


def test_only_the_owner_can_read_it(book: Ledger) -> None:
    assert book.path.stat().st_mode & 0o077 == 0


WORKER = """
import sys
from pathlib import Path
from qfed.errors import BudgetExhausted, PolicyRefused
from qfed.privacy.accounting import Releases
from qfed.privacy.ledger import Ledger, Limits
path, name, first = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
book = Ledger(path, Limits(1e9, 1e-5))
for number in range(first, 10**6):
    held = book.reserve("d", name, number, Releases(1.0, 50.0, 1), planned_rounds=10**6, request=b"q")
    print(f"read {name} {number}", flush=True)   # records are read here
    book.settle(held)
"""


def reads(lines: str) -> set[tuple[str, int]]:
    rows = [line.split() for line in lines.splitlines() if line.count(" ") == 2]
    return {(name, int(number)) for _, name, number in rows}


@pytest.mark.slow
def test_killed_at_any_moment_nothing_read_is_uncharged(tmp_path: Path) -> None:
    path, rng, seen = tmp_path / "ledger.db", random.Random(1), set()
    for attempt in range(25):
        worker = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(path), f"run{attempt}", "1"], stdout=subprocess.PIPE, text=True
        )
        assert worker.stdout is not None
        first = worker.stdout.readline()
        time.sleep(rng.random() * 0.03)
        os.kill(worker.pid, signal.SIGKILL)
        rest = worker.stdout.read()
        worker.wait()
        worker.stdout.close()
        seen |= reads(first + rest)
    book = Ledger(path, Limits(1e9, DELTA))
    charged = {(entry.run, entry.round) for entry in book.entries() if entry.kind == "reserve"}
    book.verify()
    book.close()
    assert len(seen) > 25
    assert seen <= charged


@pytest.mark.slow
def test_racing_processes_never_overspend(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    code = WORKER.replace("Limits(1e9, 1e-5)", "Limits(1.0, 1e-5)").replace("planned_rounds=10**6", "planned_rounds=1")
    code = code.replace('reserve("d", name, number', 'reserve("d", f"{name}x{number}", 1').replace("50.0", "20.0")
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(path), f"w{i}", "1"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(4)
    ]
    ends = [worker.communicate(timeout=120) for worker in workers]
    assert all("BudgetExhausted" in err for _, err in ends)
    book = Ledger(path, Limits(1.0, DELTA))
    reserved = [entry for entry in book.entries() if entry.kind == "reserve"]
    assert sum(len(reads(out)) for out, _ in ends) == len(reserved), "each charge was one read"
    assert 0.9 < book.spent("d") <= 1.0
    book.verify()
    book.close()
