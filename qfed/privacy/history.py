"""The rows of a ledger, and what they say about one data set: which runs, how far each has come."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, astuple, dataclass, field, replace
from typing import Any

from qfed.privacy.accounting import Releases
from qfed.privacy.filter import Course


@dataclass(frozen=True)
class Entry:
    """One row: a declared plan (open, close), a charge (reserve), or the end of a charged round (settle)."""

    what: str
    dataset: str
    run: str
    kind: str
    round: int
    sampling_rate: float
    noise_multiplier: float
    steps: int
    """Releases of one round; those that were made, when it is settled."""
    planned_rounds: int
    renyi_order: int | None
    """Filter of the data set, fixed with its first plan; None is the Gaussian one (in open rows)."""
    request: bytes
    reply: bytes | None = field(default=None, repr=False)
    """SHA-256 of what the round answered (in settle rows)."""
    chain: bytes = field(default=b"", repr=False)

    @property
    def releases(self) -> Releases:
        """What the round was charged for."""
        return Releases(self.sampling_rate, self.noise_multiplier, self.steps)

    @property
    def plan(self) -> Releases:
        """What the whole run declared."""
        return replace(self.releases, steps=self.steps * self.planned_rounds)

    @property
    def where(self) -> str:
        """The round in words."""
        return f"run={self.run}, round={self.round} ({self.kind}) on dataset={self.dataset!r}"

    def values(self) -> tuple[Any, ...]:
        """The columns in order."""
        return astuple(self)

    def link(self, previous: bytes) -> bytes:
        """The chain value of this row after `previous`."""
        reply = None if self.reply is None else self.reply.hex()
        fields = asdict(self) | {"request": self.request.hex(), "reply": reply, "chain": previous.hex()}
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).digest()


@dataclass
class Run:
    """One plan on one data set, and its rounds so far."""

    opened: Entry
    closed: bool = False
    steps: dict[int, int] = field(default_factory=dict)
    """Releases charged to each round."""

    @property
    def reserved(self) -> int:
        """Rounds that were charged."""
        return len(self.steps)

    @property
    def course(self) -> Course:
        """The plan for accounting."""
        charged = sum(self.steps.values())
        left = 0 if self.closed else self.opened.steps * (self.opened.planned_rounds - self.reserved)
        each = self.opened.releases
        return Course(self.opened.plan, replace(each, steps=charged + left), replace(each, steps=charged))


@dataclass
class History:
    """All runs of one data set, in the order in which they were declared."""

    runs: dict[tuple[str, str], Run] = field(default_factory=dict)
    _rows: dict[tuple[str, str, int], dict[str, Entry]] = field(default_factory=dict)

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> History:
        """The history that these rows tell."""
        history = cls()
        for entry in entries:
            history.add(entry)
        return history

    def add(self, entry: Entry) -> Run:
        """One more row; the run it belongs to."""
        key = entry.run, entry.kind
        if entry.what == "open":
            self.runs[key] = Run(entry)
            return self.runs[key]
        run = self.runs[key]
        if entry.what == "close":
            run.closed = True
            return run
        run.steps[entry.round] = entry.steps
        self._rows.setdefault((*key, entry.round), {})[entry.what] = entry
        return run

    def rounds(self, asked: Entry) -> dict[str, Entry]:
        """The reserve and settle rows of the round that `asked` names."""
        return self._rows.get((asked.run, asked.kind, asked.round), {})

    @property
    def first(self) -> Run | None:
        """The run that came first."""
        return next(iter(self.runs.values()), None)

    @property
    def order(self) -> int | None:
        """The filter of the data set."""
        return None if self.first is None else self.first.opened.renyi_order

    @property
    def courses(self) -> tuple[Course, ...]:
        """All plans, first come first."""
        return tuple(run.course for run in self.runs.values())
