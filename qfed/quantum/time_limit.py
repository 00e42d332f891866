"""A limit on how long a piece of work may take this machine, looked at before each of its parts.

    with limited(TimeLimit(900.0, "a round of run=7f3a", clock=time.monotonic)):
        with part("circuits", 320):                 # whoever works calls this around a part; ResourcesRefused stops it
            ...

A part is refused if   elapsed + units x (least seconds a unit that a part of its kind has taken)   is past the limit.
So what is known to be too long is not begun, and nothing is refused because an earlier part (the first, which
compiles) was slow; a part that takes longer than any before it may pass the limit, once. A part that runs is not
cut off. Without a limit nothing is measured.
Units   seconds of the clock      Cost  two looks at the clock a part      Errors  ResourcesRefused
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from qfed.errors import ResourcesRefused


class TimeLimit:
    """At most `most` seconds for `what`, from now on; None has no limit."""

    def __init__(self, most: float | None, what: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._what, self._clock = most, what, clock
        self._begun = clock()
        self._least: dict[str, float] = {}

    @property
    def elapsed(self) -> float:
        """Seconds since it was made."""
        return self._clock() - self._begun

    @contextmanager
    def part(self, kind: str, units: int) -> Iterator[None]:
        """A part of the work, of so many units; refused before it begins."""
        before = self.elapsed
        expected = units * self._least.get(kind, 0.0)
        if self._most is not None and before + expected > self._most:
            raise ResourcesRefused(
                f"{self._what} has taken this machine {before:.3g} s, and the next {units:,} {kind} take about "
                f"{expected:.3g} s, past the {self._most:g} s that its policy allows (most_seconds); they were not "
                "begun, and what was charged stays charged"
            )
        yield
        each = (self.elapsed - before) / max(1, units)
        self._least[kind] = min(each, self._least.get(kind, each))


_LIMIT: ContextVar[TimeLimit | None] = ContextVar("qfed_time_limit", default=None)


@contextmanager
def limited(limit: TimeLimit) -> Iterator[None]:
    """Hold everything within to `limit`."""
    token = _LIMIT.set(limit)
    try:
        yield
    finally:
        _LIMIT.reset(token)


@contextmanager
def part(kind: str, units: int = 1) -> Iterator[None]:
    """`TimeLimit.part` of the limit in use; nothing without one."""
    limit = _LIMIT.get()
    if limit is None:
        yield
    else:
        with limit.part(kind, units):
            yield
