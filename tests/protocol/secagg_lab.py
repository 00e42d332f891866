"""A federation in one process: real identities, real sites, a real aggregator; the test is the network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qfed.secagg import (
    Aggregate,
    ClientSession,
    ClientStore,
    Federation,
    GroupedSession,
    Identity,
    Policy,
    Reason,
    SecAggRefused,
    ServerEpoch,
    ServerSession,
    client_session,
)

Vector = NDArray[Any]
RUN = "run-1"


@cache
def identity(name: str) -> Identity:
    return Identity.generate(name)


def names(count: int) -> list[str]:
    return [f"site-{i:04d}" for i in range(count)]


def make_federation(count: int, *, version: int = 1, **terms: Any) -> Federation:
    policy = Policy.recommended("lab", count, **{"epoch_rounds": 3} | terms)
    sites = [identity(name).public for name in names(count)]
    return Federation.create(policy, sites, identity("coordinator"), version)


@dataclass
class Lab:
    federation: Federation
    server: ServerSession
    sites: dict[str, ClientSession | GroupedSession]
    traffic: list[tuple[str, str, bytes]] = field(default_factory=list)

    @classmethod
    def build(cls, count: int, federation: Federation | None = None, **terms: Any) -> Lab:
        federation = federation or make_federation(count, **terms)
        sites = {
            site.name: client_session(identity(site.name), federation, ClientStore(":memory:"), RUN)
            for site in federation.roster
        }
        return cls(federation, ServerSession(federation, RUN), sites)

    def ask(self, requests: Mapping[str, bytes], away: Iterable[str] = ()) -> dict[str, bytes]:
        gone = set(away)
        replies = {}
        for site in requests:
            if site in gone:
                continue
            request = requests[site]
            reply = self.sites[site].handle(request)
            self.traffic += [(site, "to", request), (site, "from", reply)]
            replies[site] = reply
        return replies

    def setup(
        self,
        epoch: int = 1,
        *,
        no_hello: Iterable[str] = (),
        no_reveal: Iterable[str] = (),
        no_setup: Iterable[str] = (),
    ) -> ServerEpoch:
        setup = self.server.begin_epoch(epoch, [s for s in self.sites if s not in set(no_hello)])
        reveals = setup.reveal(self.ask(setup.hello()))
        deals = setup.setup(self.ask(reveals, no_reveal))
        epoch = setup.finish(self.ask(deals, no_setup))
        for member, reply in self.ask(epoch.confirm_requests()).items():
            epoch.add_confirmation(member, reply)
        return epoch

    def vectors(self, size: int, seed: int = 0) -> dict[str, Vector]:
        rng = np.random.default_rng(seed)
        dtype = self.federation.policy.dtype
        return {site: rng.integers(0, 100, size).astype(dtype) for site in self.sites}

    def round(
        self,
        epoch: ServerEpoch,
        round_: int,
        vectors: Mapping[str, Vector],
        *,
        no_upload: Iterable[str] = (),
        no_unmask: Iterable[str] = (),
        no_recovery: Iterable[str] = (),
        cohort: Iterable[str] | None = None,
    ) -> Aggregate:
        size = len(next(iter(vectors.values())))
        step = self.server.begin_round(epoch, round_, size, cohort)
        for site, request in step.upload_requests().items():
            if site in set(no_upload):
                continue
            reply = self.sites[site].upload(request, vectors[site])
            self.traffic += [(site, "to", request), (site, "from", reply)]
            step.add_upload(site, reply)
        for member, reply in self.ask(step.unmask_requests(), no_unmask).items():
            step.add_unmask(member, reply)
        for member, reply in self.ask(step.recovery_requests(), no_recovery).items():
            step.add_recovery(member, reply)
        return step.result()


def expected(vectors: Mapping[str, Vector], survivors: Iterable[str]) -> Vector:
    chosen = [vectors[site] for site in survivors]
    return np.sum(chosen, axis=0, dtype=chosen[0].dtype)


def reason_of(call: Callable[[], object]) -> Reason | None:
    """Return why the other side's message was refused, or None when it was accepted."""
    try:
        call()
    except SecAggRefused as error:
        return error.reason
    return None
