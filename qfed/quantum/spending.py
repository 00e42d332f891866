"""What runs on a device is counted before it runs, and stops before a cap is passed.

    meter = Meter("braket.aws.qubit", run, price=price, caps=Caps(shots=250_000), file=folder / "spending.db")
    with counted_by(meter):
        charge(circuits=32, shots=3_200)          # whoever submits calls this first; SpendingCapReached stops it

Circuits are whatever is submitted (an annealer's problems count as such), shots whatever is repeated (its reads),
seconds the processor's own time where a vendor bills that: give an estimate before, `correct` it afterwards. A charge
is committed before the work is submitted, so a crash can only make the account too high. The file is SQLite: several
processes may share it, and a site that is started again goes on from what it has spent. Caps of the run count that
run's rows, caps of the owner (a site's policy) all rows.
Without a meter nothing is capped, and nothing is counted: local experiments need none.
Cost    one transaction a charge (about 1 ms synced)       Errors  SpendingCapReached, StateError
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from qfed.config import Price
from qfed.errors import ConfigError, SpendingCapReached, StateError

_WAIT_SECONDS = 30.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS spending (
    run TEXT NOT NULL, device TEXT NOT NULL, circuits INTEGER NOT NULL, shots INTEGER NOT NULL, seconds REAL NOT NULL,
    price REAL NOT NULL, PRIMARY KEY (run, device)
)
"""
_ADD = """
INSERT INTO spending VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (run, device) DO UPDATE SET
circuits = circuits + excluded.circuits, shots = shots + excluded.shots, seconds = seconds + excluded.seconds,
price = price + excluded.price
"""
_SUM = "SELECT coalesce(sum(circuits), 0), coalesce(sum(shots), 0), coalesce(sum(seconds), 0), coalesce(sum(price), 0)"


@dataclass(frozen=True)
class Spent:
    """What was run: circuits or problems, shots or reads, seconds of the processor, and its price by the table."""

    circuits: int = 0
    shots: int = 0
    seconds: float = 0.0
    price: float = 0.0


@dataclass(frozen=True)
class Caps:
    """What may be spent in all; None has no limit."""

    shots: int | None = None
    price: float | None = None
    seconds: float | None = None


class Meter:
    """The account of one run on one device.

    `file` keeps it across restarts (None: in memory); `caps` hold for this run, `owner` for everything in the file. A
    cap in money needs a `price`: ConfigError without one. `section` of the configuration holds the run's caps.
    """

    def __init__(
        self,
        device: str,
        run: str = "",
        *,
        price: Price | None = None,
        caps: Caps | None = None,
        owner: Caps | None = None,
        file: Path | None = None,
        free: bool = False,
        section: str = "quantum",
    ) -> None:
        self.device, self.run, self.price, self.section = device, run, price, section
        self.caps, self.owner = caps or Caps(), owner or Caps()
        if price is None and not free and (self.caps.price is not None or self.owner.price is not None):
            raise ConfigError(
                f"a cap in money needs to know what device={device!r} costs, and the price table has no entry for it; "
                "copy the table (qfed config prices), add the device and name the file in quantum.prices, or cap "
                "quantum.most_shots instead"
            )
        self._file, self._lock = file, Lock()
        self._memory = (
            sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False) if file is None else None
        )
        with self._opened() as database:
            database.execute(_SCHEMA)

    def charge(self, circuits: int, shots: int = 0, seconds: float = 0.0) -> None:
        """Account for what is about to be submitted; raises SpendingCapReached, with nothing charged, past a cap."""
        price = 0.0 if self.price is None else self.price.of(circuits, shots, seconds)
        with self._opened() as database:
            database.execute("BEGIN IMMEDIATE")
            try:
                self._refuse(Spent(circuits, shots, seconds, price), self._sum(database, self.run), self.caps, "run")
                self._refuse(Spent(circuits, shots, seconds, price), self._sum(database, None), self.owner, "site")
                database.execute(_ADD, (self.run, self.device, circuits, shots, seconds, price))
                database.execute("COMMIT")
            except BaseException:
                database.execute("ROLLBACK")
                raise

    def correct(self, seconds: float) -> None:
        """Add processor seconds (or take estimated ones back, below 0) when the vendor has told the true ones."""
        price = 0.0 if self.price is None else self.price.of(0, 0, seconds)
        with self._opened() as database:
            database.execute(_ADD, (self.run, self.device, 0, 0, seconds, price))

    def spent(self) -> Spent:
        """What this run has spent so far, earlier starts included."""
        with self._opened() as database:
            return self._sum(database, self.run)

    def spent_by_all(self) -> Spent:
        """What every run in the file has spent."""
        with self._opened() as database:
            return self._sum(database, None)

    def _refuse(self, more: Spent, before: Spent, caps: Caps, whose: str) -> None:
        prefix = f"{self.section}." if whose == "run" else ""
        if caps.shots is not None and before.shots + more.shots > caps.shots:
            raise SpendingCapReached(
                f"{before.shots:,} of the {caps.shots:,} shots that the {whose} may spend are spent, and the next "
                f"{more.circuits:,} circuits need {more.shots:,}; nothing was submitted; raise {prefix}most_shots"
            )
        if caps.price is not None and before.price + more.price > caps.price * (1 + 1e-9):
            currency = "" if self.price is None else self.price.currency + " "
            raise SpendingCapReached(
                f"{currency}{before.price:,.2f} of the {currency}{caps.price:,.2f} that the {whose} may spend are "
                f"spent, and the next {more.circuits:,} circuits cost {currency}{more.price:,.2f}; nothing was "
                f"submitted; raise {prefix}most_price"
            )
        if caps.seconds is not None and before.seconds + more.seconds > caps.seconds * (1 + 1e-9):
            raise SpendingCapReached(
                f"{before.seconds:.3g} of the {caps.seconds:g} processor seconds that the {whose} may spend are spent, "
                f"and the next {more.circuits:,} circuits take about {more.seconds:.3g}; nothing was submitted; raise "
                f"{prefix}most_seconds"
            )

    def _sum(self, database: sqlite3.Connection, run: str | None) -> Spent:
        where, values = ("", ()) if run is None else (" WHERE run = ?", (run,))
        circuits, shots, seconds, price = database.execute(f"{_SUM} FROM spending{where}", values).fetchone()
        return Spent(circuits, shots, seconds, price)

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        if self._memory is not None:
            with self._lock:  # circuits run in threads of their own
                yield self._memory
            return
        try:
            with closing(sqlite3.connect(str(self._file), timeout=_WAIT_SECONDS, isolation_level=None)) as database:
                database.execute("PRAGMA synchronous=FULL")
                yield database
        except sqlite3.Error as error:
            raise StateError(
                f"the account of device use {self._file} cannot be kept ({error}); nothing was submitted"
            ) from error


_METER: ContextVar[Meter | None] = ContextVar("qfed_meter", default=None)


@contextmanager
def counted_by(meter: Meter | None) -> Iterator[None]:
    """Charge everything that runs on a device within to `meter`."""
    token = _METER.set(meter)
    try:
        yield
    finally:
        _METER.reset(token)


def current_meter() -> Meter | None:
    """The meter that `charge` charges, if any."""
    return _METER.get()


def charge(circuits: int, shots: int = 0, seconds: float = 0.0) -> None:
    """`Meter.charge` of the meter in use; nothing without one."""
    meter = _METER.get()
    if meter is not None:
        meter.charge(circuits, shots, seconds)
