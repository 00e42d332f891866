"""Two agents of one site at once: its folder was copied, and both copies run.

    each start of an agent has a random number of its own (header qfed-instance), which no copy of a folder holds
    agent A is known -> agent B logs in (A was started anew, or B is a copy) -> A speaks again: both are alive

A copy has the site's keys, labels and ledger as they were when it was made. What one of the two is asked the other
does not know of: a privacy budget would be spent twice. So neither is served until one has been silent for a while,
which is when somebody has stopped it. Only requests that carry the site's signature count, so nobody else can shut a
site out. An agent that lies about its number is not found by this; one that starts from an older state than the
aggregator has seen is refused by the ledger's witness, live or not (witness.py).
Units   seconds of the clock; safe to use from several threads
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock

GRACE = 3.0
"""A request of an agent that was killed may be under way for this long after the next one logged in."""
QUIET = 12.0
"""Silence after which an agent counts as stopped; one that is refused asks again every 5 s."""


@dataclass
class _Site:
    current: str = ""
    spoke: dict[str, float] = field(default_factory=dict)
    replaced: dict[str, float] = field(default_factory=dict)
    """Agents after which another one logged in, and when."""
    doubled: bool = False


class Instances:
    """Which agents speak for each site, by node key; `tell` is called when a second one is noticed, or gone."""

    def __init__(
        self,
        tell: Callable[[bytes, bool], None] = lambda key, doubled: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.now, self._tell, self._lock = clock, tell, Lock()
        self._sites: dict[bytes, _Site] = {}

    def doubled(self, key: bytes) -> bool:
        """Whether two agents speak for the site of this key."""
        site = self._sites.get(key)
        return site is not None and site.doubled

    def spoke(self, key: bytes, instance: str, came: float, *, login: bool) -> bool:
        """A request came from an agent, with the site's signature; whether it is the only one."""
        with self._lock:
            site = self._sites.setdefault(key, _Site())
            site.spoke = {other: at for other, at in site.spoke.items() if came - at < QUIET} | {instance: came}
            before = site.doubled
            if site.doubled and len(site.spoke) == 1:
                site = self._sites[key] = _Site(instance, site.spoke)
            elif not site.doubled:
                _look(site, instance, came, login)
            if site.doubled != before:
                self._tell(key, site.doubled)
            return not site.doubled


def _look(site: _Site, instance: str, came: float, login: bool) -> None:
    if login or not site.current:
        if site.current not in ("", instance):
            site.replaced[site.current] = came
        site.replaced.pop(instance, None)
        site.current = instance
    elif instance != site.current and came - site.replaced.setdefault(instance, came) > GRACE:
        site.doubled = True
