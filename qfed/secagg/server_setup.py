"""An epoch's setup as the aggregator runs it: three round trips, and a site that fails a step is left out of it.

    hello()            -> {site: request}      every site that is there
    reveal(replies)    -> {site: request}      every site that answered (a larger roster: the 32 openers)
    setup(replies)     -> {site: request}      the committee
    finish(replies)    -> ServerEpoch

In a federation with groups (groups.py) draw(replies) comes after reveal, and each of `group_setups` goes on by itself.

If a drawn member failed a step, one more trip (`ServerEpoch.confirm_requests`) makes the others sign who is left.

`refused` says, by site, why it was left out: absent sites are not in it. In a larger roster the openers' nonces
must all be there (transcript.py says why); if one is not, QuorumLost names it and the caller begins the next epoch
number without it.

Errors  QuorumLost; SecAggMisuse(OUT_OF_ORDER, NOT_IN_ROSTER)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from qfed import collusion
from qfed.errors import QuorumLost
from qfed.secagg import dealing, primitives
from qfed.secagg.epoch_view import check_committee
from qfed.secagg.federation import Federation
from qfed.secagg.groups import Group, draw_groups
from qfed.secagg.messages import (
    HelloRequest,
    Receipt,
    RevealBody,
    RevealRequest,
    SetupBody,
    SetupReply,
    SetupRequest,
)
from qfed.secagg.parallel import on_threads
from qfed.secagg.reasons import Reason, SecAggMisuse, SecAggRefused
from qfed.secagg.server_epoch import ServerEpoch
from qfed.secagg.statement import Place, open_reply
from qfed.secagg.transcript import Bundle, Transcript, build_transcript, check_enough, open_bundle, openers

_Part = TypeVar("_Part")


class EpochSetup:
    """The setup of one epoch. Call hello, reveal, setup and finish, in this order, once each."""

    def __init__(
        self,
        federation: Federation,
        run: str,
        epoch: int,
        sites: Iterable[str],
        receipts: Mapping[str, Receipt],
        threads: int = 1,
    ) -> None:
        self.refused: dict[str, SecAggRefused] = {}
        self.sites = tuple(sorted(set(sites)))
        self._federation = federation
        self._place = Place(federation.digest, run, epoch)
        self._receipts = receipts
        self._threads = threads
        self._step = 0
        self._bundles: tuple[Bundle, ...] = ()
        self._nonces: tuple[bytes, ...] = ()
        self._transcript: Transcript | None = None
        self.groups: tuple[Group, ...] = ()
        if unknown := [site for site in self.sites if site not in federation.index]:
            raise SecAggMisuse(
                Reason.NOT_IN_ROSTER, f"only sites of the roster take part, got {', '.join(unknown)}; add them first"
            )
        self._quorum(len(self.sites), "are there")

    def hello(self) -> dict[str, bytes]:
        """Return the hello request of each site."""
        self._order(1)
        place = self._place
        return {
            site: HelloRequest(
                place.federation,
                place.run,
                place.epoch,
                self._receipts[site].encode() if site in self._receipts else b"",
            ).encode()
            for site in self.sites
        }

    def reveal(self, replies: Mapping[str, bytes]) -> dict[str, bytes]:
        """Take the bundles; return them all to each site that is to open its nonce."""
        self._order(2)
        opened = self._collect(
            self.sites, replies, lambda site, data: open_bundle(self._federation, self._place, data, site)
        )
        self._bundles = tuple(sorted(opened.values(), key=lambda bundle: bundle.site))
        self._quorum(len(self._bundles), "said hello")
        request = RevealRequest(
            self._place.federation, self._place.run, self._place.epoch, tuple(b.data for b in self._bundles)
        ).encode()
        return dict.fromkeys(self._openers(), request)

    def draw(self, replies: Mapping[str, bytes]) -> dict[str, bytes]:
        """Take the nonces and draw the groups; return what draws them to each site, which answers its group's hello.

        In a federation with groups this takes the place of `setup` and `finish`, which `group_setups` then go through.
        """
        self._order(3)
        self._nonces = self._take_nonces(replies)
        self.groups = draw_groups(self._federation, self._place, self._bundles, self._nonces)
        bundles = tuple(bundle.data for bundle in self._bundles)
        request = SetupRequest(self._place.federation, self._place.run, self._place.epoch, bundles, self._nonces)
        return dict.fromkeys([self._federation.roster[b.site].name for b in self._bundles], request.encode())

    def group_setups(self) -> tuple[EpochSetup, ...]:
        """Return each group's own setup, whose hellos are the answers to `draw`: it goes on with `reveal`."""
        setups = []
        for group in self.groups:
            names = [site.name for site in group.roster]
            setups.append(EpochSetup(group, self._place.run, self._place.epoch, names, self._receipts))
            setups[-1].hello()
        return tuple(setups)

    def setup(self, replies: Mapping[str, bytes]) -> dict[str, bytes]:
        """Take the nonces and fix the transcript; return it to each member of its committee."""
        self._order(3)
        self._nonces = self._take_nonces(replies)
        self._transcript = build_transcript(
            self._federation,
            self._place,
            [bundle.site for bundle in self._bundles],
            [bundle.digest for bundle in self._bundles],
            {bundle.site: bundle.commitment for bundle in self._bundles},
            self._nonces,
        )
        request = SetupRequest(
            self._place.federation,
            self._place.run,
            self._place.epoch,
            tuple(bundle.data for bundle in self._bundles),
            self._nonces,
        ).encode()
        return {self._federation.roster[site].name: request for site in self._transcript.drawn}

    def _take_nonces(self, replies: Mapping[str, bytes]) -> tuple[bytes, ...]:
        """Return the openers' nonces; in a small federation without groups, sites that did not open are left out."""
        who = self._openers()
        about = primitives.digest("revealed", b"".join(bundle.digest for bundle in self._bundles))
        commitments = {bundle.site: bundle.commitment for bundle in self._bundles}

        def take(site: str, data: bytes) -> bytes:
            body, _ = open_reply(self._federation, self._place, RevealRequest.KIND, about, data, site)
            nonce = RevealBody.decode(body).nonce
            if primitives.digest("nonce", nonce) != commitments[self._federation.index[site]]:
                raise SecAggRefused(Reason.BAD_NONCE, f"the nonce of site={site} is not the one it committed to")
            return nonce

        nonces = self._collect(who, replies, take)
        if len(self._federation.roster) <= collusion.ALL_SITES_UP_TO and self._federation.policy.groups == 1:
            self._bundles = tuple(b for b in self._bundles if self._federation.roster[b.site].name in nonces)
            self._quorum(len(self._bundles), "opened their nonces")
        elif missing := [site for site in who if site not in nonces]:
            raise QuorumLost(
                f"all {len(who)} openers of epoch={self._place.epoch} must open their nonces, but "
                f"{', '.join(missing)} did not; begin epoch={self._place.epoch + 1} without them"
            )
        return tuple(nonces[site] for site in who if site in nonces)

    def finish(self, replies: Mapping[str, bytes]) -> ServerEpoch:
        """Take the members' sealed keys and return the epoch."""
        self._order(4)
        transcript = self._transcript
        if transcript is None:
            raise SecAggMisuse(Reason.OUT_OF_ORDER, "a setup that lost its quorum cannot be finished; begin another")

        def take(site: str, data: bytes) -> tuple[SetupReply, list[list[bytes]]]:
            reply = SetupReply.decode(data)
            body, _ = open_reply(
                self._federation, self._place, SetupRequest.KIND, transcript.digest, reply.header, site
            )
            member = self._federation.index[site]
            return reply, dealing.check_deal(self._federation, transcript, member, SetupBody.decode(body), reply)

        drawn = [self._federation.roster[site].name for site in transcript.drawn]
        setups = self._collect(drawn, replies, take)
        try:
            check_committee(self._federation, len(setups))
        except SecAggRefused as error:
            raise QuorumLost(f"{error}; begin epoch={self._place.epoch + 1} with the sites that are there") from error
        checked = {self._federation.index[site]: part for site, part in setups.items()}
        return ServerEpoch.assemble(
            self._federation, self._place, transcript, self._bundles, self._nonces, checked, self._threads
        )

    def _openers(self) -> list[str]:
        sites = [bundle.site for bundle in self._bundles]
        who = openers(self._federation, sites, [bundle.digest for bundle in self._bundles])
        return [self._federation.roster[site].name for site in who]

    def _collect(
        self, asked: Iterable[str], replies: Mapping[str, bytes], take: Callable[[str, bytes], _Part]
    ) -> dict[str, _Part]:
        """Return what can be taken of each asked site's reply; note why another's was refused."""

        def attempt(site: str) -> _Part | SecAggRefused:
            try:
                return take(site, replies[site])
            except SecAggRefused as error:
                return error

        there = [site for site in asked if site in replies]
        parts: dict[str, _Part] = {}
        for site, part in zip(there, on_threads(attempt, there, self._threads), strict=True):
            if isinstance(part, SecAggRefused):
                self.refused[site] = part
            else:
                parts[site] = part
        return parts

    def _quorum(self, sites: int, what: str) -> None:
        try:
            check_enough(self._federation, sites)
        except SecAggRefused as error:
            raise QuorumLost(f"too few sites {what} in epoch={self._place.epoch}: {error}") from error

    def _order(self, step: int) -> None:
        if step != self._step + 1:
            raise SecAggMisuse(
                Reason.OUT_OF_ORDER, "a setup goes hello, reveal, setup, finish, each once; begin another epoch"
            )
        self._step = step
