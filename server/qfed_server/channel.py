"""How the sum of the cohort's vectors reaches the aggregator: masked (secure.py), or in clear (simulation only).

Both channels send the same encoded integers, so a run gives the same model with secure aggregation on and off.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from qfed.errors import RemoteProtocolError
from qfed.federation import wire
from qfed.secagg import Layout, Policy, decode
from qfed_server.exchange import Exchange

log = logging.getLogger("qfed.server")

Requests = dict[str, wire.Fields]


@dataclass(frozen=True)
class Part:
    """What was opened on its own: the sum of all sites, of a group, or (in clear) a single site; or why it was not."""

    sites: tuple[str, ...]
    survivors: tuple[str, ...]
    sums: Mapping[str, np.ndarray] | None
    failure: str | None = None


@dataclass(frozen=True)
class Outcome:
    """Sums over the survivors by block, or None and why; and for sites that were asked and are missing, why."""

    sums: Mapping[str, np.ndarray] | None
    survivors: tuple[str, ...]
    dropouts: Mapping[str, str]
    failure: str | None = None
    parts: tuple[Part, ...] = ()
    """What the sums are the sum of."""


class Channel(Protocol):
    """One aggregation: ask, merge, decode."""

    def aggregate(self, kind: str, round: int, layout: Layout, model: bytes, *, once: bool = False) -> Outcome:
        """Send the model, return the sum of the sites' vectors under `layout`.

        `once`: if this fails, no other round takes its place; it can be asked for again, under its own label.
        """
        ...

    def begins(self, round: int) -> bool:
        """Whether new keys are set up in `round`, so that other sites may come in."""
        ...


class ClearChannel:
    """Vectors in clear: the aggregator sees every site's update. Simulation only; sites refuse it elsewhere.

    With `single` it keeps them apart, for strategies that compare single updates.
    """

    def __init__(self, exchange: Exchange, policy: Policy, run: str, *, single: bool = False) -> None:
        self._exchange, self._policy, self._run, self._single = exchange, policy, run, single
        log.warning("SECURE AGGREGATION IS OFF: every site's update reaches the aggregator in clear")

    def begins(self, round: int) -> bool:
        """Never: there are no keys, and the sites are those that joined."""
        return False

    def aggregate(self, kind: str, round: int, layout: Layout, model: bytes, *, once: bool = False) -> Outcome:
        """See Channel."""
        sites = self._exchange.sites
        asked: Requests = {site: {"run": self._run, "round": round, "model": model, "request": b""} for site in sites}
        total, survivors = np.zeros(layout.size, self._policy.dtype), []
        parts: list[Part] = []

        def add(site: str, body: bytes) -> None:
            if len(body) != total.nbytes:
                raise RemoteProtocolError(f"sent {len(body)} bytes where {total.nbytes} were due")
            vector = np.frombuffer(body, dtype=total.dtype)
            if self._single:
                parts.append(Part((site,), (site,), decode(layout, vector, 1)))
            np.add(total, vector, out=total)
            survivors.append(site)

        dropouts = self._exchange.ask(kind, kind, asked, round=round, accept=body_to(add), body=bytes).missing
        if len(survivors) < self._policy.min_survivors:
            few = f"{len(survivors)} sites answered, the quorum is {self._policy.min_survivors}"
            return Outcome(None, (), dropouts, few)
        sums, survivors = decode(layout, total, len(survivors)), sorted(survivors)
        parts = parts or [Part(self._exchange.sites, tuple(survivors), sums)]
        return Outcome(sums, tuple(survivors), dropouts, None, tuple(parts))


def body_to(accept: Callable[[str, bytes], None]) -> Callable[[str, Mapping[str, wire.Field]], None]:
    """Hand over only the body of an answer."""
    return lambda site, fields: accept(site, bytes(fields["body"]))  # type: ignore[arg-type]
