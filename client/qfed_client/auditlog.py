"""The audit log of a site: one JSON line for every message received, every decision, every charge, every answer sent.

    audit.jsonl     {"n": 7, "t": "...", "what": "received", ..., "prev": "...", "hash": "..."}     0600, append only
    audit.anchor    number and hash of a late line, replaced with every decision

    hash_n = BLAKE3("qfed audit 1", hash_{n-1}, line n without its hash)

Lines are synced to disk before the work goes on. Found by `verify`: a line that was edited, deleted or put in; lines
cut off at the end or the whole file taken away, down to the anchor (the next line goes on from the anchor, so the gap
stays visible); a ledger that is older than the log tells; charges that the log does not tell of. Not found: a forger
who may write both files and writes all anew from some line on; a head noted elsewhere (`--head`) finds that too.
A line that a crash left half-written at the end is dropped, and that is noted.
Cost  one synced write for a message, one for its decision, one for what was sent     Errors  StateError
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from blake3 import blake3

from qfed.errors import StateError
from qfed.federation.files import write_atomically

FILE, ANCHOR = "audit.jsonl", "audit.anchor"
_DOMAIN = b"qfed audit 1"
_TAIL = 1 << 16

Value = str | int | float
Record = Mapping[str, Value]


@dataclass(frozen=True)
class _Head:
    """Where the chain has come to."""

    number: int = 0
    hash: str = ""


class AuditLog:
    """Appends to the log in a site's folder; several may be open at once, in one process or in more."""

    def __init__(self, folder: Path, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._file, self._anchor, self._now = folder / FILE, folder / ANCHOR, now
        self._head, self._size = _Head(), -1

    def append(self, *records: Record, anchor: bool = False) -> str:
        """Write records as the next lines, durably; the hash of the last one."""
        try:
            return self._append(records, anchor)
        except OSError as error:
            raise StateError(
                f"the audit log {self._file} cannot be written ({error.strerror}); nothing is done that is not logged"
            ) from None

    def _append(self, records: Sequence[Record], anchor: bool) -> str:
        handle = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(handle, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            lost = self._catch_up(file.fileno())
            lines = [self._line({"what": "recovered", "bytes": lost})] if lost else []
            lines += [self._line(record) for record in records]
            body = b"".join(lines)
            file.seek(0, os.SEEK_END)
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
            self._size += len(body)
            if anchor:
                content = json.dumps({"n": self._head.number, "hash": self._head.hash})
                write_atomically(self._anchor, content.encode(), secret=True)
        return self._head.hash

    def _line(self, record: Record) -> bytes:
        value = {"n": self._head.number + 1, "t": self._now().isoformat(timespec="milliseconds"), **record}
        value["prev"] = self._head.hash
        self._head = _Head(self._head.number + 1, _hash(value))
        return json.dumps(value | {"hash": self._head.hash}).encode() + b"\n"

    def _catch_up(self, handle: int) -> int:
        """Find the end of the chain, if others wrote since; bytes of a half-written line that were cut off."""
        size = os.fstat(handle).st_size
        if size == self._size:
            return 0
        start, tail = max(0, size - _TAIL), b""
        while True:
            tail = os.pread(handle, size - start, start)
            if start == 0 or tail.count(b"\n") >= 2:
                break
            start = max(0, start - _TAIL)
        whole = tail[: tail.rfind(b"\n") + 1]
        lost = len(tail) - len(whole)
        if lost:
            os.ftruncate(handle, size - lost)
        last = whole.rstrip(b"\n").rpartition(b"\n")[2]
        found = _head_of(last, str(self._file)) if last else _Head()
        noted = read_anchor(self._anchor)
        self._head, self._size = found if found.number >= noted.number else noted, size - lost
        return lost


@dataclass(frozen=True)
class Verified:
    """What a log's chain says: lines that are there, the last one, and everything that is wrong."""

    lines: int
    head: str
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    """What is no proof of anything, but worth knowing."""


def verify(folder: Path, ledger_heads: Sequence[str] = (), head: str | None = None) -> Verified:
    """Check the log of a site's folder.

    `ledger_heads` are those that its ledger has had, the present one first (none: no ledger to compare); `head` is a
    line's hash that was noted elsewhere.
    """
    problems: list[str] = []
    notes: list[str] = []
    before, seen, hashes, known = _Head(), 0, set(), frozenset(ledger_heads)
    noted, charged = read_anchor(folder / ANCHOR), ""
    for at, value in lines(folder):
        if value is None:
            notes.append(f"line {at} is half-written: the agent was cut off, or is writing now")
            continue
        seen += 1
        told, number = value.pop("hash", None), value.get("n")
        if told != _hash(value) or not isinstance(number, int):
            problems.append(f"line {at} was changed after it was written")
        elif value.get("prev") != before.hash or number != before.number + 1:
            problems.append(_gap(at, before, number))
        if isinstance(number, int) and number == noted.number and told != noted.hash:
            problems.append(f"line {at} is not the one that {ANCHOR} notes; the log was written anew")
        before = _Head(number if isinstance(number, int) else before.number + 1, str(told))
        hashes.add(str(told))
        if value.get("what") == "charge":
            charged = str(value.get("ledger"))
            if ledger_heads and charged not in known:
                problems.append(f"line {at} tells of a charge that is not in the ledger: the ledger is an older copy")
    if before.number < noted.number:
        problems.append(f"the log ends with entry {before.number}, but {ANCHOR} notes entry {noted.number}: cut off")
    if ledger_heads and ledger_heads[0] != charged:
        notes.append(
            "the ledger has charges that the log does not tell of: the agent was killed in a round, the log is an "
            "older copy, or the ledger was used before there was a log"
        )
    if head is not None and head not in hashes:
        problems.append(f"no line has the hash {head}: the log is older than that, or was written anew")
    return Verified(seen, before.hash, tuple(problems), tuple(notes))


def lines(folder: Path) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Lines with their numbers in the file, from 1; None for one that is half-written at the end."""
    file = folder / FILE
    if not file.exists():
        return
    with file.open("rb") as opened:
        for at, line in enumerate(opened, 1):
            try:
                value = json.loads(line)
            except ValueError:
                value = None
            if not line.endswith(b"\n"):
                yield at, None
            else:
                yield at, value if isinstance(value, dict) else {}


def read_anchor(path: Path) -> _Head:
    """The line that the anchor notes; number 0 when there is none."""
    if not path.exists():
        return _Head()
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        return _Head(int(value["n"]), str(value["hash"]))
    except (ValueError, KeyError, TypeError) as error:
        raise StateError(f"{path} cannot be read ({type(error).__name__}); restore it from a backup") from None


def _head_of(line: bytes, path: str) -> _Head:
    try:
        value = json.loads(line)
        return _Head(int(value["n"]), str(value["hash"]))
    except (ValueError, KeyError, TypeError) as error:
        raise StateError(
            f"the last line of {path} is not one of an audit log ({type(error).__name__}); it was edited. Move it away "
            "to go on: the gap stays visible"
        ) from None


def _hash(value: Mapping[str, Any]) -> str:
    content = json.dumps({key: value[key] for key in value if key != "hash"}, sort_keys=True, separators=(",", ":"))
    state = blake3(_DOMAIN)
    for part in (str(value.get("prev", "")).encode(), content.encode()):
        state.update(len(part).to_bytes(8, "big") + part)
    return state.hexdigest(16)


def _gap(at: int, before: _Head, number: int) -> str:
    if number > before.number + 1:
        return f"before line {at}, entries {before.number + 1} to {number - 1} are missing"
    return f"line {at} (entry {number}) does not follow the line before it: one was put in, or its order changed"
