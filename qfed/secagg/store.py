"""A site's durable memory: epoch keys, burnt labels, the uploads to send again, and one answer a round.

Nothing masked leaves a site before the label that it is masked under is on disk. One SQLite file (WAL,
synchronous=FULL, BEGIN IMMEDIATE, locked by one process); each transaction that writes raises `counter` by one:

    commit (counter c) -> fsync -> witness file says c -> fsync -> the bytes leave

A crash before the commit leaves nothing behind, and nothing left; a crash after it leaves the finished bytes to be
sent again. A restored database is refused by its witness (witness.py), or by the receipt that the aggregator shows.

Cost    one commit and one small fsync a message; an upload of s bytes writes s + 4 KiB (twice: WAL and file)
Errors  SecAggState: ROLLBACK, STORE_BUSY, STORE_CORRUPT
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from qfed.secagg.primitives import random_key
from qfed.secagg.reasons import Reason, SecAggState
from qfed.secagg.statement import StoreMark
from qfed.secagg.transaction import SCHEMA, Transaction
from qfed.secagg.witness import Witness

_WAIT = 30.0  # seconds SQLite waits for another process to let go of the file


class ClientStore:
    """One site's store, at `path` (":memory:" for one that survives nothing).

    `witness` is where the second file lies (default: PATH.witness). A store that is not `durable` survives the
    process but not a loss of power, and has no witness: for the sites of a simulation only, whose thousand stores
    would wait for the disk most of the time. `on_write` is called with the name of each
    point of a write ("begun", "written", "committed", "witnessed"), for tests that stop there.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        witness: Path | str | None = None,
        durable: bool = True,
        on_write: Callable[[str], None] = lambda point: None,
    ) -> None:
        self._path = None if str(path) == ":memory:" else Path(path)
        self._durable = durable
        self._witness = Witness(self._path, Path(witness or f"{path}.witness")) if self._path and durable else None
        self._on_write = on_write
        self._lock = threading.RLock()
        self._witnessed = 0
        if self._path is not None and not self._path.exists():
            os.close(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        self._database = sqlite3.connect(
            str(path), timeout=_WAIT, isolation_level=None, check_same_thread=False, cached_statements=64
        )
        try:
            self._mark = self._open()
        except sqlite3.OperationalError as error:
            self._database.close()
            raise SecAggState(
                Reason.STORE_BUSY, f"path={path} cannot be opened ({error}); one process at a time uses a site's store"
            ) from error
        except sqlite3.DatabaseError as error:
            self._database.close()
            raise SecAggState(
                Reason.STORE_CORRUPT, f"path={path} is not a store of this version ({error}); move it away"
            ) from error
        except SecAggState:
            self._database.close()
            raise

    def _open(self) -> StoreMark:
        execute = self._database.execute
        execute("PRAGMA page_size=16384")  # an upload is megabytes: fewer pages, half the time
        execute(f"PRAGMA synchronous={'FULL' if self._durable else 'OFF'}")
        if self._path is not None:
            execute("PRAGMA locking_mode=EXCLUSIVE")
            execute("PRAGMA journal_mode=WAL")
        execute("PRAGMA secure_delete=ON")
        execute("BEGIN IMMEDIATE")
        for statement in SCHEMA.strip().split(";\n"):
            execute(statement)
        row = execute("SELECT store, counter FROM meta").fetchone()
        if row is None:
            row = (random_key(), 0)
            execute("INSERT INTO meta VALUES (1, ?, 0, 0)", (row[0],))
        execute("COMMIT")
        mark = StoreMark(*row)
        self._mark = mark
        if self._witness is not None:
            self._witness.check(mark)
        self._testify()
        return mark

    @property
    def mark(self) -> StoreMark:
        """Which store this is and how far it has come."""
        return self._mark

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """One atomic step: everything in it is on disk, and witnessed, when the block has ended; or nothing is."""
        with self._lock, self._guarded():
            self._database.execute("BEGIN IMMEDIATE")
            step = Transaction(self._database, self._mark)
            self._on_write("begun")
            try:
                yield step
                if step.dirty:
                    self._database.execute("UPDATE meta SET counter=?", (step.mark.counter,))
                    self._on_write("written")
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise
            if step.dirty:
                self._mark = step.mark
                self._on_write("committed")
            if self._witnessed != self._mark.counter:
                self._testify()
                self._on_write("witnessed")

    def _testify(self) -> None:
        if self._witness is not None:
            self._witness.put(self._mark)
        self._witnessed = self._mark.counter

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise SecAggState(
                Reason.STORE_CORRUPT,
                f"the store at path={self._path} failed ({error}); nothing was sent, check the disk",
            ) from error

    def close(self) -> None:
        """Close the file and let go of its lock."""
        with self._lock:
            self._database.close()
