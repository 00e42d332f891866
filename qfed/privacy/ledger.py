"""What a site's data sets have spent: an append-only SQLite file that is charged before records are read.

    open      a run declares its whole plan (rounds of so many releases) with its first round; it cannot change it
    reserve   one round is charged, if everything declared fits the budget, else BudgetExhausted; synced to disk
    settle    the round is over: releases that were not made are given back, its answer is kept for redelivery
    close     a run gives up the rounds that it did not use

A round that was reserved and cut off stays charged and is refused when asked for again: what it read may have been
seen. A settled round is never computed again; `replay` gives the answer of the first time. What several plans cost
together is the matter of filter.py; a plan that was admitted can be trained to its end.

Rows carry a SHA-256 chain, checked before each answer, and triggers forbid UPDATE and DELETE. So an edited file is
noticed; rows cut off at the end, or an old copy put back in place of the file, take a witness outside: the aggregator
countersigns the head (qfed.secagg.receipt), for which `heads` gives the chain.
Cost  a reserve: one synced transaction, the chain over new rows, one accounting (cached)
Errors  BudgetExhausted, PolicyRefused, StateError
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from qfed.errors import BudgetExhausted, LocalProtocolError, PolicyRefused, StateError
from qfed.privacy.accounting import Releases
from qfed.privacy.filter import Limits, committed, order_for, reading, spent
from qfed.privacy.history import Entry, History, Run

__all__ = ["Entry", "Ledger", "Limits"]

_WAIT_SECONDS = 30.0
_VERSION = 2
_SCHEMA = """
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS entry (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    what TEXT NOT NULL CHECK (what IN ('open', 'reserve', 'settle', 'close')),
    dataset TEXT NOT NULL, run TEXT NOT NULL, kind TEXT NOT NULL, round INTEGER NOT NULL,
    sampling_rate REAL NOT NULL, noise_multiplier REAL NOT NULL, steps INTEGER NOT NULL,
    planned_rounds INTEGER NOT NULL, renyi_order INTEGER,
    request BLOB NOT NULL, reply BLOB, chain BLOB NOT NULL,
    UNIQUE (dataset, run, kind, round, what)
);
CREATE TABLE IF NOT EXISTS reply (digest BLOB PRIMARY KEY, body BLOB NOT NULL);
CREATE TRIGGER IF NOT EXISTS no_update BEFORE UPDATE ON entry BEGIN SELECT RAISE(ABORT, 'a ledger is append-only'); END;
CREATE TRIGGER IF NOT EXISTS no_delete BEFORE DELETE ON entry BEGIN SELECT RAISE(ABORT, 'a ledger is append-only'); END;
PRAGMA user_version = 2;
COMMIT;
"""
_COLUMNS = (
    "what, dataset, run, kind, round, sampling_rate, noise_multiplier, steps, planned_rounds, renyi_order, "
    "request, reply, chain"
)


class Ledger:
    """The ledger at `path`, made on first use (0600); several processes may use one file.

    One that is not `durable` may lose its last rounds with the power, not with the process: for the sites of a
    simulation only.
    """

    def __init__(self, path: Path | str, limits: Limits, *, durable: bool = True) -> None:
        self.path, self.limits = Path(path), limits
        if not self.path.exists():
            os.close(os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o600))
        self._database = sqlite3.connect(
            self.path, timeout=_WAIT_SECONDS, isolation_level=None, check_same_thread=False
        )
        self._verified, self._head = 0, b""
        try:
            version = self._database.execute("PRAGMA user_version").fetchone()[0]
            tables = self._database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if (version or tables) and version != _VERSION:
                raise sqlite3.DatabaseError(f"its format is version {version}, this is qfed's version {_VERSION}")
            self._database.execute(f"PRAGMA synchronous={'FULL' if durable else 'OFF'}")
            self._database.execute("PRAGMA journal_mode=WAL")
            if version != _VERSION:
                self._database.executescript(_SCHEMA)
        except sqlite3.DatabaseError as error:
            self._database.close()
            raise StateError(
                f"{self.path} is not a privacy ledger of this version ({error}); move it away, and ask who put it there"
            ) from None

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def reserve(
        self,
        dataset: str,
        run: str,
        round: int,
        releases: Releases,
        *,
        planned_rounds: int,
        request: bytes,
        kind: str = "train",
    ) -> Entry:
        """Charge one round of a run's plan, durably, before its records are read.

        `request` is a digest of what was asked. Raises BudgetExhausted when what is declared does not fit the budget,
        PolicyRefused when the round was charged before or leaves the run's plan.
        """
        asked = Entry(
            "reserve", dataset, run, kind, round, releases.sampling_rate, releases.noise_multiplier, releases.steps,
            planned_rounds, None, request,
        )  # fmt: skip
        with self._transaction():
            history = self._checked_history(dataset)
            self._refuse_repeated(history, asked)
            mine = history.runs.get((run, kind))
            if mine is None:
                first = history.first
                order = order_for(asked.plan, self.limits) if first is None else first.opened.renyi_order
                opened = replace(asked, what="open", round=0, renyi_order=order)
                mine = history.add(opened)
            else:
                opened = None
                self._refuse_beyond(mine, asked)
            total = committed(history.courses, self.limits.delta, history.order)
            if self.limits.exceeded_by(total):
                raise BudgetExhausted(self._exhausted(history, mine, total))
            if opened is not None:
                self._append(opened)
            return self._append(asked)

    def settle(self, reservation: Entry, steps_done: int | None = None, reply: bytes | None = None) -> None:
        """Note that a reserved round is over, after `steps_done` releases (all of them, if left out).

        `reply` is what the round answered, for `replay`; it must hold nothing but what was released.
        """
        steps = reservation.steps if steps_done is None else steps_done
        if not 0 <= steps <= reservation.steps:
            raise LocalProtocolError(
                f"a round settles at no more than it reserved, {reservation.steps} steps, got steps_done={steps}"
            )
        with self._transaction():
            rounds = self._checked_history(reservation.dataset).rounds(reservation)
            if "reserve" not in rounds or "settle" in rounds:
                raise LocalProtocolError(f"{reservation.where} is not reserved, or settled already")
            digest = None if reply is None else hashlib.sha256(reply).digest()
            if reply is not None:
                self._database.execute("INSERT OR IGNORE INTO reply (digest, body) VALUES (?, ?)", (digest, reply))
            self._append(replace(reservation, what="settle", steps=steps, reply=digest))

    def replay(self, dataset: str, run: str, round: int, request: bytes, *, kind: str = "train") -> bytes | None:
        """The answer of a round that is over, None for a new round; PolicyRefused for any other (see `reserve`)."""
        asked = Entry("reserve", dataset, run, kind, round, 1.0, 1.0, 0, 0, None, request)
        with self._transaction():
            history = self._checked_history(dataset)
            settled = history.rounds(asked).get("settle")
            if settled is None or settled.request != request or settled.reply is None:
                self._refuse_repeated(history, asked)
                return None
            find = "SELECT CAST(body AS BLOB) FROM reply WHERE digest = ?"
            row = self._database.execute(find, (settled.reply,)).fetchone()
        if row is None or hashlib.sha256(row[0]).digest() != settled.reply:
            raise StateError(f"{self.path}: the answer of {asked.where} is not the one that was given; it was edited")
        return bytes(row[0])

    def close_run(self, dataset: str, run: str, *, kind: str = "train") -> None:
        """Give up the rounds of a run's plan that it did not use, for others; it is not continued."""
        with self._transaction():
            mine = self._checked_history(dataset).runs.get((run, kind))
            if mine is None:
                raise LocalProtocolError(f"run={run} has no plan on dataset={dataset!r} that could be closed")
            if not mine.closed:
                self._append(replace(mine.opened, what="close"))

    def spent(self, dataset: str) -> float:
        """Epsilon that is charged to a data set so far; what runs still hold is not in it."""
        history = self._checked_history(dataset)
        return spent(history.courses, self.limits.delta, history.order)

    def committed(self, dataset: str) -> float:
        """Epsilon of a data set once all its runs have come to their ends."""
        history = self._checked_history(dataset)
        return committed(history.courses, self.limits.delta, history.order)

    def rows(self) -> tuple[Entry, ...]:
        """All rows, oldest first."""
        return self._select("", ())

    def heads(self) -> Iterator[bytes]:
        """Chain values that the ledger has had, the present one first, the empty one of a new ledger last."""
        self._verify_new()
        for (chain,) in self._database.execute("SELECT chain FROM entry ORDER BY id DESC"):
            yield bytes(chain)
        yield b""

    def verify(self) -> int:
        """Check the chain from its first row; the number of rows. Raises StateError naming the first changed row."""
        self._verified, self._head = 0, b""
        self._verify_new()
        return int(self._database.execute("SELECT count(*) FROM entry").fetchone()[0])

    def _verify_new(self) -> None:
        rows = self._database.execute(
            f"SELECT id, {_COLUMNS} FROM entry WHERE id > ? ORDER BY id",  # noqa: S608  constants
            (self._verified,),
        )
        for number, *values in rows:
            entry = Entry(*values)
            if number != self._verified + 1 or entry.link(self._head) != entry.chain:
                raise StateError(
                    f"{self.path}: row {self._verified + 1} is not the one that was written; the ledger was edited, "
                    "and nothing is read any more on its word"
                )
            self._verified, self._head = number, entry.chain

    def _select(self, where: str, values: tuple[str, ...]) -> tuple[Entry, ...]:
        rows = self._database.execute(f"SELECT {_COLUMNS} FROM entry {where} ORDER BY id", values)  # noqa: S608  constants
        return tuple(Entry(*row) for row in rows)

    def _checked_history(self, dataset: str) -> History:
        self._verify_new()
        return History.of(self._select("WHERE dataset = ?", (dataset,)))

    def _refuse_repeated(self, history: History, asked: Entry) -> None:
        same = history.rounds(asked)
        if "reserve" not in same:
            return
        if same["reserve"].request != asked.request:
            raise PolicyRefused(
                f"{asked.where} was charged for another request; one round is trained once, from one model"
            )
        if "settle" in same:
            raise PolicyRefused(f"{asked.where} is over; its answer can be sent again, but not computed anew")
        raise PolicyRefused(f"{asked.where} was charged and cut off; it stays charged and is not trained again")

    def _refuse_beyond(self, mine: Run, asked: Entry) -> None:
        opened = mine.opened
        if (asked.releases, asked.planned_rounds) != (opened.releases, opened.planned_rounds):
            raise PolicyRefused(
                f"run={asked.run} planned {opened.planned_rounds} rounds of {opened.releases} on dataset="
                f"{asked.dataset!r}, now it asks for {asked.planned_rounds} of {asked.releases}; a plan is fixed when "
                "its run starts"
            )
        if mine.closed:
            raise PolicyRefused(f"run={asked.run} on dataset={asked.dataset!r} was closed; begin another")
        if mine.reserved >= opened.planned_rounds:
            raise BudgetExhausted(
                f"run={asked.run} has used the {opened.planned_rounds} rounds of its plan on dataset="
                f"{asked.dataset!r}; begin another"
            )

    def _exhausted(self, history: History, mine: Run, total: float) -> str:
        opened, limits = mine.opened, self.limits
        already = [run.course for run in history.runs.values() if run is not mine]
        text = (
            f"dataset={opened.dataset!r} has a budget of epsilon={limits.epsilon:g}, delta={limits.delta:g} and has "
            f"spent {spent(already, limits.delta, history.order):.3f}; run={opened.run} would take it to {total:.3f}. "
            "Nothing was read. Ask for fewer rounds or more noise, or use other records"
        )
        first = history.first
        if already and first and limits.exceeded_by(reading([first.opened.plan], limits.delta, history.order)):
            text += f" (the plan of run={first.opened.run} leaves room for no other run, used or not)"
        return text

    def _append(self, entry: Entry) -> Entry:
        linked = replace(entry, chain=entry.link(self._head))
        values = linked.values()
        marks = ", ".join("?" * len(values))
        cursor = self._database.execute(f"INSERT INTO entry ({_COLUMNS}) VALUES ({marks})", values)  # noqa: S608
        self._verified, self._head = int(cursor.lastrowid or 0), linked.chain
        return linked

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        before = self._verified, self._head
        try:
            self._database.execute("BEGIN IMMEDIATE")
            yield
            self._database.execute("COMMIT")
        except BaseException as error:
            self._verified, self._head = before
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise StateError(
                    f"the ledger {self.path} is in use or cannot be written ({error}); nothing was read"
                ) from None
            raise
