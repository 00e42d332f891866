"""How the sum of the cohort's vectors reaches the aggregator: masked, or in clear (simulation only).

Both channels send the same encoded integers, so a run gives the same model with secure aggregation on and off.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from qfed.errors import ProtocolError, QuorumLost, RemoteProtocolError
from qfed.federation import wire
from qfed.secagg import Federation, Layout, Policy, ServerEpoch, ServerSession, decode
from qfed_server.exchange import Answers, Exchange

Requests = dict[str, wire.Fields]


@dataclass(frozen=True)
class Outcome:
    """Sums over the survivors by block, or None and why; and for sites that were asked and are missing, why."""

    sums: Mapping[str, np.ndarray] | None
    survivors: tuple[str, ...]
    dropouts: Mapping[str, str]
    failure: str | None = None


class Channel(Protocol):
    """One aggregation: ask, merge, decode."""

    def aggregate(self, kind: str, round: int, layout: Layout, model: bytes) -> Outcome:
        """Send the model, return the sum of the sites' vectors under `layout`."""
        ...


class ClearChannel:
    """Vectors in clear: the aggregator sees every site's update. Simulation only; sites refuse it elsewhere."""

    def __init__(self, exchange: Exchange, policy: Policy, run: str) -> None:
        self._exchange, self._policy, self._run = exchange, policy, run

    def aggregate(self, kind: str, round: int, layout: Layout, model: bytes) -> Outcome:
        """See Channel."""
        sites = self._exchange.sites
        asked: Requests = {site: {"run": self._run, "round": round, "model": model, "request": b""} for site in sites}
        total, survivors = np.zeros(layout.size, self._policy.dtype), []

        def add(site: str, body: bytes) -> None:
            if len(body) != total.nbytes:
                raise RemoteProtocolError(f"sent {len(body)} bytes where {total.nbytes} were due")
            np.add(total, np.frombuffer(body, dtype=total.dtype), out=total)
            survivors.append(site)

        dropouts = self._exchange.ask(kind, kind, asked, round=round, accept=_body(add), body=bytes).missing
        if len(survivors) < self._policy.min_survivors:
            few = f"{len(survivors)} sites answered, the quorum is {self._policy.min_survivors}"
            return Outcome(None, (), dropouts, few)
        return Outcome(decode(layout, total, len(survivors)), tuple(sorted(survivors)), dropouts)


class SecureChannel:
    """Vectors under committee masks: epoch set-up when due, upload, unmask, and recovery when a member vanished."""

    def __init__(self, exchange: Exchange, federation: Federation, run: str) -> None:
        self._exchange, self._federation, self._run = exchange, federation, run
        self._session = ServerSession(federation, run, threads=os.cpu_count() or 1)
        self._epoch: ServerEpoch | None = None
        self._first_round = 0
        self._absent: dict[str, str] = {}

    def aggregate(self, kind: str, round: int, layout: Layout, model: bytes) -> Outcome:
        """See Channel."""
        try:
            epoch = self._current_epoch(round)
            return self._sum(epoch, kind, round, layout, model)
        except QuorumLost as error:
            return Outcome(None, (), self._absent, str(error))

    def _ask(
        self, phase: str, bodies: Mapping[str, bytes], round: int, accept: Callable[[str, bytes], None] | None = None
    ) -> Answers:
        requests: Requests = {site: {"run": self._run, "body": body} for site, body in bodies.items()}
        taken = _body(accept) if accept is not None else None
        return self._exchange.ask(phase, wire.SECAGG, requests, round=round, accept=taken, body=bytes)

    def _current_epoch(self, round: int) -> ServerEpoch:
        """The epoch that covers `round`; a new one when there is none or its rounds are used up."""
        if self._epoch is None or round - self._first_round >= self._federation.policy.epoch_rounds:
            self._epoch = None
            # Named after its first round: it grows, also for an aggregator that starts again from its checkpoint.
            setup = self._session.begin_epoch(round, self._exchange.sites)
            hello = self._ask("setup", setup.hello(), round)
            reveal = self._ask("setup", setup.reveal(hello.bodies()), round)
            sealed = self._ask("setup", setup.setup(reveal.bodies()), round)
            epoch = setup.finish(sealed.bodies())
            # Empty when the whole committee took part; else enough members must say that they saw the same one.
            confirmed = self._ask("setup", epoch.confirm_requests(), round, epoch.add_confirmation)
            self._epoch, self._first_round = epoch, round
            silent = {**hello.missing, **reveal.missing, **sealed.missing, **confirmed.missing, **setup.refused}
            left_out = set(silent) - set(epoch.names)
            self._absent = {site: f"not in the epoch: {silent[site]}" for site in left_out}
        return self._epoch

    def _sum(self, epoch: ServerEpoch, kind: str, round: int, layout: Layout, model: bytes) -> Outcome:
        secure = self._session.begin_round(epoch, round - self._first_round, layout.size)
        asked: Requests = {
            site: {"run": self._run, "round": round, "model": model, "request": request}
            for site, request in secure.upload_requests().items()
        }
        dropouts = dict(self._absent)
        dropouts |= self._exchange.ask(
            kind, kind, asked, round=round, accept=_body(secure.add_upload), body=bytes
        ).missing
        try:
            dropouts |= self._ask("unmask", secure.unmask_requests(), round, secure.add_unmask).missing
            if recovery := secure.recovery_requests():
                dropouts |= self._ask("recovery", recovery, round, secure.add_recovery).missing
            aggregate = secure.result()
            sums = decode(layout, aggregate.total, len(aggregate.survivors))
        except (ProtocolError, QuorumLost) as error:
            self._epoch = None  # the next round starts with fresh keys among the sites that are there
            return Outcome(None, (), dropouts, str(error))
        dropouts = {site: reason for site, reason in dropouts.items() if site not in aggregate.survivors}
        return Outcome(sums, aggregate.survivors, dropouts)


def _body(accept: Callable[[str, bytes], None]) -> Callable[[str, Mapping[str, wire.Field]], None]:
    return lambda site, fields: accept(site, bytes(fields["body"]))  # type: ignore[arg-type]
