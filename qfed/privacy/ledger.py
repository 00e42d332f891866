"""What a site's data sets have spent: an append-only SQLite file that is charged before records are read.

    reserve   epsilon(everything charged + the whole plan of this run) <= limit, else BudgetExhausted; synced
    settle    the round is over; the charge stays

A round that was reserved and cut off stays charged and is refused when asked for again: what it read may have been
seen. A run declares its plan (releases a round, rounds) with its first round and cannot change it. While one run is all
that a data set has seen, its epsilon is that of a plan fixed in advance; when a second run comes, whose plan somebody
may have chosen by looking at the first one's model, everything is composed by the Renyi filter (accounting.py).

Rows carry a SHA-256 chain and triggers forbid UPDATE and DELETE, so an edited file is noticed (`verify`). An old copy
put back in place of the file is not noticed here: that takes a witness outside the site.
Cost  a reserve: one synced transaction and one accounting      Errors  BudgetExhausted, PolicyRefused, StateError
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from qfed.errors import BudgetExhausted, PolicyRefused, StateError
from qfed.privacy.accounting import Releases, epsilon_of

_WAIT_SECONDS = 30.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS entry (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL CHECK (kind IN ('reserve', 'settle')),
    dataset TEXT NOT NULL, run TEXT NOT NULL, round INTEGER NOT NULL,
    sampling_rate REAL NOT NULL, noise_multiplier REAL NOT NULL,
    steps INTEGER NOT NULL, planned_rounds INTEGER NOT NULL,
    request BLOB NOT NULL, chain BLOB NOT NULL,
    UNIQUE (dataset, run, round, kind)
);
CREATE TRIGGER IF NOT EXISTS no_update BEFORE UPDATE ON entry BEGIN SELECT RAISE(ABORT, 'a ledger is append-only'); END;
CREATE TRIGGER IF NOT EXISTS no_delete BEFORE DELETE ON entry BEGIN SELECT RAISE(ABORT, 'a ledger is append-only'); END;
"""
_COLUMNS = "kind, dataset, run, round, sampling_rate, noise_multiplier, steps, planned_rounds, request, chain"


@dataclass(frozen=True)
class Limits:
    """The budget of each data set of this ledger."""

    epsilon: float
    delta: float


@dataclass(frozen=True)
class Entry:
    """One row: a charge, or the note that its round is over."""

    kind: str
    dataset: str
    run: str
    round: int
    sampling_rate: float
    noise_multiplier: float
    steps: int
    planned_rounds: int
    request: bytes
    chain: bytes = b""

    @property
    def releases(self) -> Releases:
        """What the round was charged for."""
        return Releases(self.sampling_rate, self.noise_multiplier, self.steps)

    def link(self, previous: bytes) -> bytes:
        """The chain value of this row after `previous`."""
        fields = asdict(self) | {"request": self.request.hex(), "chain": previous.hex()}
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).digest()


class Ledger:
    """The ledger at `path`, made on first use (0600); several processes may use one file."""

    def __init__(self, path: Path | str, limits: Limits) -> None:
        self.path, self.limits = Path(path), limits
        if not self.path.exists():
            os.close(os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o600))
        self._database = sqlite3.connect(
            self.path, timeout=_WAIT_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=FULL")
            self._database.executescript(_SCHEMA)
        except sqlite3.DatabaseError as error:
            self._database.close()
            raise StateError(
                f"{self.path} is not a privacy ledger ({error}); move it away, and ask who put it there"
            ) from None

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def reserve(
        self, dataset: str, run: str, round: int, releases: Releases, *, planned_rounds: int, request: bytes
    ) -> Entry:
        """Charge one round of a run's plan, durably, before its records are read.

        `request` is a digest of what was asked. Raises BudgetExhausted when the run's whole plan does not fit beside
        what is charged already, PolicyRefused when the round was charged before or leaves the run's plan.
        """
        asked = Entry("reserve", dataset, run, round, *_of(releases), planned_rounds, request)
        with self._transaction():
            charged = [entry for entry in self.entries() if entry.dataset == dataset]
            self._check_repeated(asked, charged)
            reserved = [entry for entry in charged if entry.kind == "reserve"]
            same_run = [entry for entry in reserved if entry.run == run]
            for entry in same_run:
                if (entry.releases, entry.planned_rounds) != (releases, planned_rounds):
                    raise PolicyRefused(
                        f"run={run} planned {entry.planned_rounds} rounds of {entry.releases} on dataset={dataset!r}, "
                        f"now it asks for {planned_rounds} of {releases}; a plan is fixed when its run starts"
                    )
            if len(same_run) >= planned_rounds:
                raise BudgetExhausted(
                    f"run={run} has used the {planned_rounds} rounds of its plan on dataset={dataset!r}; begin another"
                )
            others = [entry.releases for entry in reserved if entry.run != run]
            plan = Releases(releases.sampling_rate, releases.noise_multiplier, releases.steps * planned_rounds)
            total = epsilon_of([*others, plan], self.limits.delta, fixed=not others)
            if total > self.limits.epsilon * (1 + 1e-9):
                spent = epsilon_of(others, self.limits.delta, fixed=len({e.run for e in reserved if e.run != run}) < 2)
                raise BudgetExhausted(
                    f"dataset={dataset!r} has a budget of epsilon={self.limits.epsilon:g}, delta={self.limits.delta:g} "
                    f"and has spent {spent:.3f}; run={run} would take it to {total:.3f}. Nothing was read. Ask "
                    "for fewer rounds or more noise, or use other records"
                )
            return self._append(asked)

    def settle(self, reservation: Entry) -> None:
        """Note that a reserved round is over; the charge stays."""
        with self._transaction():
            self._append(Entry(**(asdict(reservation) | {"kind": "settle", "chain": b""})))

    def spent(self, dataset: str) -> float:
        """Epsilon that is charged to a data set so far."""
        reserved = [entry for entry in self.entries() if entry.dataset == dataset and entry.kind == "reserve"]
        one_run = len({entry.run for entry in reserved}) < 2
        return epsilon_of([entry.releases for entry in reserved], self.limits.delta, fixed=one_run)

    def entries(self) -> tuple[Entry, ...]:
        """All rows, oldest first."""
        rows = self._database.execute(f"SELECT {_COLUMNS} FROM entry ORDER BY id").fetchall()  # noqa: S608  a constant
        return tuple(Entry(*row) for row in rows)

    def verify(self) -> int:
        """Check the chain; the number of rows. Raises StateError naming the first row that was changed."""
        previous = b""
        entries = self.entries()
        for number, entry in enumerate(entries, 1):
            if entry.link(previous) != entry.chain:
                raise StateError(f"{self.path}: row {number} is not the one that was written; the ledger was edited")
            previous = entry.chain
        return len(entries)

    def _check_repeated(self, asked: Entry, charged: list[Entry]) -> None:
        same = {entry.kind: entry for entry in charged if (entry.run, entry.round) == (asked.run, asked.round)}
        if not same:
            return
        where = f"run={asked.run}, round={asked.round} on dataset={asked.dataset!r}"
        if same["reserve"].request != asked.request:
            raise PolicyRefused(f"{where} was charged for another request; one round is trained once, from one model")
        if "settle" in same:
            raise PolicyRefused(f"{where} is over; its answer can be sent again, but not computed anew")
        raise PolicyRefused(f"{where} was charged and cut off; it stays charged and is not trained again")

    def _append(self, entry: Entry) -> Entry:
        last = self._database.execute("SELECT chain FROM entry ORDER BY id DESC LIMIT 1").fetchone()
        linked = Entry(**(asdict(entry) | {"chain": entry.link(last[0] if last else b"")}))
        values = tuple(asdict(linked).values())
        marks = ", ".join("?" * len(values))
        self._database.execute(f"INSERT INTO entry ({_COLUMNS}) VALUES ({marks})", values)  # noqa: S608  constants
        return linked

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._database.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            raise StateError(
                f"the ledger {self.path} is in use or cannot be written ({error}); nothing was read"
            ) from None
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")


def _of(releases: Releases) -> tuple[float, float, int]:
    return releases.sampling_rate, releases.noise_multiplier, releases.steps
