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
from dataclasses import dataclass, field, replace
from pathlib import Path

from qfed.secagg.primitives import random_key
from qfed.secagg.reasons import Reason, SecAggState
from qfed.secagg.statement import Place, StoreMark
from qfed.secagg.witness import Witness

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (one INTEGER PRIMARY KEY CHECK (one = 1), store BLOB NOT NULL,
    counter INTEGER NOT NULL, version INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS epochs (federation BLOB, run TEXT, epoch INTEGER, kem BLOB, nonce BLOB, bundle BLOB,
    revealed BLOB, transcript BLOB, dealt BLOB, setup BLOB, confirmed BLOB, installed BLOB,
    PRIMARY KEY (federation, run, epoch));
CREATE TABLE IF NOT EXISTS labels (federation BLOB, run TEXT, epoch INTEGER, round INTEGER, size INTEGER NOT NULL,
    slot INTEGER, PRIMARY KEY (federation, run, epoch, round));
CREATE TABLE IF NOT EXISTS slots (slot INTEGER PRIMARY KEY, size INTEGER NOT NULL, upload BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS answers (federation BLOB, run TEXT, epoch INTEGER, round INTEGER, size INTEGER NOT NULL,
    survivors BLOB NOT NULL, lost BLOB NOT NULL, PRIMARY KEY (federation, run, epoch, round));
"""
_EPOCH_FIELDS = ("kem", "nonce", "bundle", "revealed", "transcript", "dealt", "setup", "confirmed", "installed")
_DROP_FREE_SLOTS = "DELETE FROM slots WHERE slot NOT IN (SELECT slot FROM labels WHERE slot IS NOT NULL)"
_KEPT_UPLOADS = 2  # rounds whose bytes are kept for redelivery; older labels stay burnt
_WAIT = 30.0  # seconds SQLite waits for another process to let go of the file


@dataclass(frozen=True)
class EpochRecord:
    """What a site knows of one epoch; empty bytes for what has not happened or has been forgotten."""

    kem: bytes = field(default=b"", repr=False)
    nonce: bytes = field(default=b"", repr=False)
    bundle: bytes = b""
    revealed: bytes = b""
    transcript: bytes = b""
    dealt: bytes = field(default=b"", repr=False)
    setup: bytes = field(default=b"", repr=False)
    confirmed: bytes = b""
    installed: bytes = field(default=b"", repr=False)


@dataclass(frozen=True)
class Answer:
    """The one answer that a member gives in a round."""

    size: int
    survivors: bytes
    lost: bytes


class Transaction:
    """Reads and writes of one atomic step. Only `ClientStore.transaction` makes one."""

    def __init__(self, database: sqlite3.Connection, mark: StoreMark) -> None:
        self._database = database
        self._mark = mark
        self.dirty = False

    @property
    def mark(self) -> StoreMark:
        """The store's mark as it will stand when this transaction is committed."""
        return replace(self._mark, counter=self._mark.counter + self.dirty)

    def epoch(self, place: Place) -> EpochRecord | None:
        """Return what is known of the place's epoch."""
        row = self._database.execute(
            f"SELECT {', '.join(_EPOCH_FIELDS)} FROM epochs WHERE federation=? AND run=? AND epoch=?",  # noqa: S608
            (place.federation, place.run, place.epoch),
        ).fetchone()
        return None if row is None else EpochRecord(*row)

    def put_epoch(self, place: Place, record: EpochRecord) -> None:
        """Write what is known of the place's epoch."""
        self._write(
            "INSERT OR REPLACE INTO epochs VALUES (?,?,?,?,?,?,?,?,?,?,?,?)",
            (place.federation, place.run, place.epoch, *(getattr(record, name) for name in _EPOCH_FIELDS)),
        )

    def latest_epoch(self, place: Place) -> int:
        """Return the highest epoch begun under this federation and run, or -1."""
        row = self._database.execute(
            "SELECT MAX(epoch) FROM epochs WHERE federation=? AND run=?", (place.federation, place.run)
        ).fetchone()
        return -1 if row[0] is None else int(row[0])

    def unfinished_epochs(self, place: Place) -> int:
        """Return how many epochs were begun since one was last installed."""
        row = self._database.execute(
            "SELECT COUNT(*) FROM epochs WHERE federation=?1 AND run=?2 AND epoch > "
            "(SELECT COALESCE(MAX(epoch), -1) FROM epochs WHERE federation=?1 AND run=?2 AND installed != x'')",
            (place.federation, place.run),
        ).fetchone()
        return int(row[0])

    def epochs_before(self, place: Place) -> tuple[int, ...]:
        """Return the earlier epochs of the place of which anything is kept."""
        rows = self._database.execute(
            "SELECT epoch FROM epochs WHERE federation=? AND run=? AND epoch<? AND (setup != x'' OR installed != x'')",
            (place.federation, place.run, place.epoch),
        )
        return tuple(int(row[0]) for row in rows)

    def forget_before(self, place: Place) -> None:
        """Delete keys, answers and uploads of earlier epochs: what is gone cannot be stolen. Labels stay."""
        where = "WHERE federation=? AND run=? AND epoch<?"
        key = (place.federation, place.run, place.epoch)
        empty = ", ".join(f"{name}=x''" for name in _EPOCH_FIELDS if name != "installed")
        self._write(f"UPDATE epochs SET {empty}, installed=x'' {where}", key)  # noqa: S608
        self._write(f"DELETE FROM answers {where}", key)  # noqa: S608
        self._write(f"UPDATE labels SET slot=NULL {where}", key)  # noqa: S608
        self._write(_DROP_FREE_SLOTS, ())

    def forget_all_but(self, federation: bytes) -> None:
        """Delete keys, answers and uploads of every other version of the federation file. Labels stay."""
        empty = ", ".join(f"{name}=x''" for name in _EPOCH_FIELDS)
        self._write(f"UPDATE epochs SET {empty} WHERE federation != ?", (federation,))  # noqa: S608
        self._write("DELETE FROM answers WHERE federation != ?", (federation,))
        self._write("UPDATE labels SET slot=NULL WHERE federation != ?", (federation,))
        self._write(_DROP_FREE_SLOTS, ())

    def label(self, place: Place) -> tuple[int, bytes | None] | None:
        """Return (size, bytes sent or None when no longer kept) if the place's label is burnt."""
        row = self._database.execute(
            "SELECT labels.size, upload FROM labels LEFT JOIN slots USING (slot) "
            "WHERE federation=? AND run=? AND epoch=? AND round=?",
            _key(place),
        ).fetchone()
        return None if row is None else (int(row[0]), row[1])

    def label_size(self, place: Place) -> int | None:
        """Return the size under which the place's label is burnt, without reading the bytes, or None."""
        row = self._database.execute(
            "SELECT size FROM labels WHERE federation=? AND run=? AND epoch=? AND round=?", _key(place)
        ).fetchone()
        return None if row is None else int(row[0])

    def latest_round(self, place: Place) -> int:
        """Return the highest round whose label is burnt in the place's epoch, or -1."""
        row = self._database.execute(
            "SELECT MAX(round) FROM labels WHERE federation=? AND run=? AND epoch=?", _key(place)[:3]
        ).fetchone()
        return -1 if row[0] is None else int(row[0])

    def burn_label(self, place: Place, size: int, upload: bytes) -> None:
        """Burn the place's label together with the bytes that it allows; a label burns once.

        The bytes overwrite those of a round that is no longer kept, in place where the size is the same: that is one
        write of them, where a new row and the wiping of an old one are four.
        """
        self._write(
            "UPDATE labels SET slot=NULL WHERE federation=? AND run=? AND epoch=? AND round<=?",
            (*_key(place)[:3], place.round - _KEPT_UPLOADS),
        )
        slot = self._keep(upload)
        self._write("INSERT INTO labels VALUES (?,?,?,?,?,?)", (*_key(place), size, slot))

    def _keep(self, upload: bytes) -> int:
        """Write an upload over one that no label refers to, or beside the others; return where it is."""
        free = self._database.execute(
            "SELECT slot, size FROM slots WHERE slot NOT IN (SELECT slot FROM labels WHERE slot IS NOT NULL)"
        ).fetchone()
        if free is not None and free[1] == len(upload):
            with self._database.blobopen("slots", "upload", free[0]) as blob:
                blob.write(upload)
            return int(free[0])
        row = (None if free is None else free[0], len(upload), upload)
        return int(self._database.execute("INSERT OR REPLACE INTO slots VALUES (?,?,?)", row).lastrowid or 0)

    def answer(self, place: Place) -> Answer | None:
        """Return what this member has answered in the place's round."""
        row = self._database.execute(
            "SELECT size, survivors, lost FROM answers WHERE federation=? AND run=? AND epoch=? AND round=?",
            _key(place),
        ).fetchone()
        return None if row is None else Answer(*row)

    def put_answer(self, place: Place, answer: Answer) -> None:
        """Write what this member answers in the place's round."""
        self._write(
            "INSERT OR REPLACE INTO answers VALUES (?,?,?,?,?,?,?)",
            (*_key(place), answer.size, answer.survivors, answer.lost),
        )

    def federation_version(self) -> int:
        """Return the highest version of a federation file that this store has been used with."""
        return int(self._database.execute("SELECT version FROM meta").fetchone()[0])

    def put_federation_version(self, version: int) -> None:
        """Write the highest version of a federation file."""
        self._write("UPDATE meta SET version=?", (version,))

    def _write(self, statement: str, values: tuple[object, ...]) -> None:
        self._database.execute(statement, values)
        self.dirty = True


def _key(place: Place) -> tuple[bytes, str, int, int]:
    return place.federation, place.run, place.epoch, place.round


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
        for statement in _SCHEMA.strip().split(";\n"):
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
