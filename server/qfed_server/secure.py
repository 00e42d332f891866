"""Secure aggregation over the sites of a run: one sum over all of them, or one a group, all groups at once.

    epoch   hello, reveal [, draw and reveal of the groups], setup [, confirm]     when due, or after a failure
    round   upload, unmask [, recovery]

A group that loses too many of its members, in the setup or in a round, fails alone: its sites are reported with the
reason, the sums of the others count, and the next round draws new groups among the sites that are there.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qfed.errors import LocalProtocolError, ProtocolError, QuorumLost
from qfed.federation import wire
from qfed.secagg import EpochSetup, Federation, Group, Layout, ServerEpoch, ServerRound, ServerSession, decode
from qfed.secagg.groups import recall, remember
from qfed_server.channel import Outcome, Part, Requests, body_to
from qfed_server.exchange import Answers, Exchange
from qfed_server.memory import EpochMemory

log = logging.getLogger("qfed.server")

Bodies = Mapping[str, bytes]


@dataclass
class _Cohort:
    """Sites that are summed together, all of them or a group, and how far they have come; `failure` ends it."""

    session: ServerSession
    sites: tuple[str, ...]
    setup: EpochSetup | None = None
    """None for an epoch that was set up before the aggregator started again."""
    epoch: ServerEpoch | None = None
    round: ServerRound | None = None
    sums: Mapping[str, NDArray[Any]] | None = None
    failure: str | None = None

    def told(self) -> str:
        return f"its group of {len(self.sites)} sites failed: {self.failure}"


@dataclass
class _Epoch:
    first_round: int
    cohorts: list[_Cohort]
    absent: dict[str, str] = field(default_factory=dict)


class SecureChannel:
    """Vectors under committee masks: epoch set-up when due, upload, unmask, and recovery when a member vanished."""

    def __init__(self, exchange: Exchange, federation: Federation, run: str, memory: EpochMemory | None = None) -> None:
        self._exchange, self._federation, self._run = exchange, federation, run
        self._session = ServerSession(federation, run, threads=os.cpu_count() or 1)
        self._memory = memory
        self._epoch: _Epoch | None = self._remembered()
        self._withheld: set[str] = set()
        self._silent: dict[str, str] = {}

    def begins(self, round: int) -> bool:
        """See Channel."""
        epoch = self._epoch
        return epoch is None or not 0 <= round - epoch.first_round < self._federation.policy.epoch_rounds

    def aggregate(self, kind: str, round: int, layout: Layout, model: bytes, *, once: bool = False) -> Outcome:
        """See Channel."""
        due = self.begins(round)
        epoch, self._epoch = self._epoch, None  # after any failure below the next round starts with fresh keys
        if epoch is None or due:
            try:
                epoch = self._begin(round)
            except QuorumLost as error:
                return Outcome(None, (), self._silent, str(error))
        for cohort in epoch.cohorts:
            cohort.round = cohort.sums = None
        outcome = self._sum(epoch, kind, round, layout, model)
        if all(cohort.failure is None for cohort in epoch.cohorts):
            self._epoch = epoch
        elif self._memory is not None and not once:
            self._memory.give_up()
        return outcome

    def _ask(
        self, phase: str, bodies: Bodies, round: int, accept: Callable[[str, bytes], None] | None = None
    ) -> Answers:
        requests: Requests = {site: {"run": self._run, "body": body} for site, body in bodies.items()}
        taken = body_to(accept) if accept is not None else None
        return self._exchange.ask(phase, wire.SECAGG, requests, round=round, accept=taken, body=bytes)

    # -- epoch setup ---------------------------------------------------------------------------------------------

    def _begin(self, round: int) -> _Epoch:
        """Set up the epoch that begins with `round`: keys among all sites that are there, or among those of a group."""
        sites = [site for site in self._exchange.sites if site not in self._withheld]
        self._withheld, self._silent = set(), {}

        def ask(bodies: Bodies, accept: Callable[[str, bytes], None] | None = None) -> Bodies:
            answers = self._ask("setup", bodies, round, accept)
            self._silent |= answers.missing
            return answers.bodies()

        # Named after its first round, or with a memory later than any before: a site refuses a name it has seen.
        setup = self._session.begin_epoch(round if self._memory is None else self._memory.begin(round), sites)
        asked = setup.reveal(ask(setup.hello()))
        replies = ask(asked)
        # Whoever commits to a nonce and does not open it may make this setup fail; the next one goes without it.
        self._withheld = set(asked) - set(replies)
        if self._federation.policy.groups > 1:
            drawn = ask(setup.draw(replies))
            cohorts = [
                _Cohort(self._session.of_group(group), own.sites, own)
                for group, own in zip(setup.groups, setup.group_setups(), strict=True)
            ]
            replies = ask(_each(cohorts, lambda cohort: _begun(cohort).reveal(_own(cohort, drawn))))
        else:
            cohorts = [_Cohort(self._session, setup.sites, setup)]
        sealed = ask(_each(cohorts, lambda cohort: _begun(cohort).setup(_own(cohort, replies))))
        self._withheld = set()

        def finish(cohort: _Cohort) -> Bodies:
            """Empty when the whole committee took part; else enough members must say that they saw the same one."""
            cohort.epoch = _begun(cohort).finish(_own(cohort, sealed))
            return cohort.epoch.confirm_requests()

        of = {site: cohort for cohort in cohorts for site in cohort.sites}
        ask(_each(cohorts, finish), lambda site, body: _ready(of[site]).add_confirmation(site, body))
        for cohort in cohorts:
            self._silent |= {site: str(why) for site, why in {**setup.refused, **_begun(cohort).refused}.items()}
            if cohort.failure is not None and len(cohorts) > 1:
                self._silent |= dict.fromkeys(cohort.sites, cohort.told())
        failures = [cohort.failure for cohort in cohorts if cohort.failure is not None]
        if len(failures) == len(cohorts):
            raise QuorumLost(failures[0])
        present = {site for cohort in cohorts if cohort.epoch is not None for site in cohort.epoch.names}
        absent = {site: f"not in the epoch: {why}" for site, why in self._silent.items() if site not in present}
        if self._memory is not None:
            self._memory.keep(
                round, [body for cohort in cohorts if cohort.failure is None for body in self._kept(cohort)]
            )
        return _Epoch(round, cohorts, absent)

    def _kept(self, cohort: _Cohort) -> Iterator[bytes]:
        """What is kept of an epoch: of a group, who is in it as well."""
        group = cohort.session.federation
        if isinstance(group, Group):
            yield remember(self._federation, group)
        yield _ready(cohort).to_bytes()

    def _remembered(self) -> _Epoch | None:
        """The epoch that was under way when the aggregator went down, if it is of this federation file."""
        kept = None if self._memory is None else self._memory.epoch()
        if kept is None:
            return None
        try:
            if self._federation.policy.groups == 1:
                (body,) = kept.bodies
                return _Epoch(kept.first_round, [_restored(self._session, body)])
            pairs = zip(kept.bodies[::2], kept.bodies[1::2], strict=True)
            sessions = ((self._session.of_group(recall(self._federation, group)), body) for group, body in pairs)
            return _Epoch(kept.first_round, [_restored(session, body) for session, body in sessions])
        except (ProtocolError, ValueError, IndexError) as error:
            log.warning("the epoch that was under way is not continued, new keys are made: %s", error)
            return None

    # -- a round -------------------------------------------------------------------------------------------------

    def _sum(self, epoch: _Epoch, kind: str, round: int, layout: Layout, model: bytes) -> Outcome:
        of = {site: cohort for cohort in epoch.cohorts for site in cohort.sites}
        memory = self._memory
        before = None if memory is None else memory.survivors(round)
        fixed = None if before is None else frozenset(before)

        def begin(cohort: _Cohort) -> Bodies:
            """A round that was cut off after its survivors were fixed is about them: members answer for no others."""
            chosen = None if fixed is None else fixed & set(cohort.sites)
            cohort.round = cohort.session.begin_round(_ready(cohort), round - epoch.first_round, layout.size, chosen)
            return cohort.round.upload_requests()

        def close(cohort: _Cohort) -> Bodies:
            if fixed is not None and (gone := (fixed & set(cohort.sites)) - set(_running(cohort).survivors)):
                raise QuorumLost(
                    f"the sum over {len(fixed)} sites was about to be opened before, and {', '.join(sorted(gone)[:5])} "
                    "did not send again what it sent then; no sum over others may be opened beside it"
                )
            return _running(cohort).unmask_requests()

        asked: Requests = {
            site: {"run": self._run, "round": round, "model": model, "request": request}
            for site, request in _each(epoch.cohorts, begin).items()
        }
        upload = body_to(lambda site, body: _running(of[site]).add_upload(site, body))
        uploads = self._exchange.ask(kind, kind, asked, round=round, accept=upload, body=bytes)
        unmask = _each(epoch.cohorts, close)
        if memory is not None and unmask:
            closed = [cohort for cohort in epoch.cohorts if cohort.failure is None]
            memory.fix(round, sorted(site for cohort in closed for site in _running(cohort).survivors))
        masks = self._ask("unmask", unmask, round, lambda site, body: _running(of[site]).add_unmask(site, body))
        recovery = _each(epoch.cohorts, lambda cohort: _running(cohort).recovery_requests())
        shares = self._ask("recovery", recovery, round, lambda site, body: _running(of[site]).add_recovery(site, body))

        def open_sum(cohort: _Cohort) -> Bodies:
            aggregate = _running(cohort).result()
            cohort.sums = decode(layout, aggregate.total, len(aggregate.survivors))
            return {}

        _each(epoch.cohorts, open_sum)
        return _outcome(epoch, {**epoch.absent, **uploads.missing, **masks.missing, **shares.missing})


def _outcome(epoch: _Epoch, dropouts: dict[str, str]) -> Outcome:
    parts = tuple(
        Part(
            sites=cohort.sites,
            survivors=() if cohort.sums is None else _running(cohort).survivors,
            sums=cohort.sums,
            failure=cohort.failure,
        )
        for cohort in epoch.cohorts
    )
    good = [part.sums for part in parts if part.sums is not None]
    if not good:
        return Outcome(None, (), dropouts, parts[0].failure, parts)
    for cohort in epoch.cohorts:
        if cohort.failure is not None:
            dropouts = dict.fromkeys(cohort.sites, cohort.told()) | dropouts
    survivors = tuple(sorted(site for part in parts for site in part.survivors))
    total = {name: np.sum([sums[name] for sums in good], axis=0) for name in good[0]}
    return Outcome(total, survivors, {s: why for s, why in dropouts.items() if s not in survivors}, None, parts)


def _each(cohorts: list[_Cohort], step: Callable[[_Cohort], Bodies]) -> dict[str, bytes]:
    """What every cohort that is still there asks in a step; one that cannot go on is out, with the reason."""
    requests: dict[str, bytes] = {}
    for cohort in cohorts:
        if cohort.failure is None:
            try:
                requests |= step(cohort)
            except (ProtocolError, QuorumLost) as error:
                cohort.failure = str(error)
    return requests


def _own(cohort: _Cohort, replies: Bodies) -> dict[str, bytes]:
    return {site: replies[site] for site in cohort.sites if site in replies}


def _restored(session: ServerSession, body: bytes) -> _Cohort:
    epoch = session.restore_epoch(body)
    return _Cohort(session, epoch.names, epoch=epoch)


def _begun(cohort: _Cohort) -> EpochSetup:
    if cohort.setup is None:
        raise LocalProtocolError("an epoch that was set up before is not set up again")
    return cohort.setup


def _ready(cohort: _Cohort) -> ServerEpoch:
    if cohort.epoch is None:
        raise QuorumLost("its keys were not set up")
    return cohort.epoch


def _running(cohort: _Cohort) -> ServerRound:
    if cohort.round is None:
        raise QuorumLost("its round did not begin")
    return cohort.round
