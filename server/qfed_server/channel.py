"""How the sum of the cohort's vectors reaches the aggregator: masked, or in clear (simulation only).

Both channels send the same encoded integers, so a run gives the same model with secure aggregation on and off.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from qfed.errors import ProtocolError, QuorumLost, RemoteProtocolError
from qfed.federation import wire
from qfed.secagg import Epoch, Federation, Layout, Policy, ServerSession, decode
from qfed_server.exchange import Answers, Exchange


@dataclass(frozen=True)
class Outcome:
    """Sums over the survivors by block, or None when the round failed; and why sites that were asked are missing."""

    sums: Mapping[str, np.ndarray] | None
    survivors: tuple[str, ...]
    dropouts: Mapping[str, str]


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
        asked = {site: {"run": self._run, "round": round, "model": model, "request": b""} for site in sites}
        answers = self._exchange.ask(kind, kind, asked, round=round, body=bytes)
        dtype = np.dtype(f"<u{self._policy.ring_bits // 8}")
        total = np.zeros(layout.size, dtype=dtype)
        dropouts, survivors = dict(answers.missing), []
        for site, body in answers.bodies().items():
            if len(body) != total.nbytes:
                dropouts[site] = f"sent {len(body)} bytes where {total.nbytes} were due"
                continue
            total += np.frombuffer(body, dtype=dtype)
            survivors.append(site)
        if len(survivors) < self._policy.min_survivors:
            return Outcome(None, tuple(sorted(survivors)), dropouts)
        return Outcome(decode(layout, total, len(survivors)), tuple(sorted(survivors)), dropouts)


class SecureChannel:
    """Vectors under committee masks: epoch set-up when due, upload, unmask, and recovery when a member vanished."""

    def __init__(self, exchange: Exchange, federation: Federation, run: str) -> None:
        self._exchange, self._federation, self._run = exchange, federation, run
        self._session = ServerSession(federation, run)
        self._epoch: Epoch | None = None
        self._epochs = 0
        self._absent: dict[str, str] = {}

    def aggregate(self, kind: str, round: int, layout: Layout, model: bytes) -> Outcome:
        """See Channel."""
        try:
            epoch = self._current_epoch(round)
            return self._sum(epoch, kind, round, layout, model)
        except QuorumLost as error:
            return Outcome(None, (), {**self._absent, "federation": str(error)})

    def _ask(self, phase: str, bodies: Mapping[str, bytes], round: int) -> Answers:
        requests = {site: {"run": self._run, "body": body} for site, body in bodies.items()}
        return self._exchange.ask(phase, wire.SECAGG, requests, round=round, body=bytes)

    def _current_epoch(self, round: int) -> Epoch:
        if self._epoch is None or not self._epoch.covers(round):
            self._epoch = None
            self._epochs += 1
            setup = self._session.begin_epoch(self._epochs, self._exchange.sites, first_round=round)
            hello = self._ask("setup", setup.hello(), round)
            reveal = self._ask("setup", setup.reveal(hello.bodies()), round)
            sealed = self._ask("setup", setup.setup(reveal.bodies()), round)
            self._epoch = setup.finish(sealed.bodies())
            silent = {**hello.missing, **reveal.missing, **sealed.missing}
            self._absent = {site: f"not in the epoch: {reason}" for site, reason in silent.items()}
            self._absent.update({site: f"not in the epoch: {reason}" for site, reason in setup.refused.items()})
        return self._epoch

    def _sum(self, epoch: Epoch, kind: str, round: int, layout: Layout, model: bytes) -> Outcome:
        secure = self._session.begin_round(epoch, round, layout.size)
        asked = {
            site: {"run": self._run, "round": round, "model": model, "request": request}
            for site, request in secure.upload_requests().items()
        }
        uploads = self._exchange.ask(kind, kind, asked, round=round, body=bytes)
        dropouts = {**self._absent, **uploads.missing}

        def take(answers: Answers, accept: object) -> None:
            for site, body in answers.bodies().items():
                try:
                    accept(site, body)  # type: ignore[operator]
                except RemoteProtocolError as error:
                    dropouts[site] = str(error)

        take(uploads, secure.add_upload)
        try:
            take(self._ask("unmask", secure.unmask_requests(), round), secure.add_unmask)
            if recovery := secure.recovery_requests():
                take(self._ask("recovery", recovery, round), secure.add_recovery)
            aggregate = secure.result()
        except ProtocolError as error:
            return Outcome(None, (), {**dropouts, "federation": str(error)})
        dropouts = {site: reason for site, reason in dropouts.items() if site not in aggregate.survivors}
        sums = decode(layout, aggregate.total, len(aggregate.survivors))
        return Outcome(sums, aggregate.survivors, dropouts)
