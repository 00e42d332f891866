"""A site's side of a federation with groups: it draws its group itself, and then is a site of that group only.

    hello, reveal     of the whole federation                                  (client_setup.py)
    setup request     draws the groups; answered with this site's hello to its own group
    anything else     belongs to the group that this site was drawn into, and goes to its ClientSession

So nothing is ever masked, or unmasked, for the federation as a whole, and a group that the aggregator made up is one
that this site does not know.

Errors  SecAggRefused: WRONG_FEDERATION for a group that this site was not drawn into, WRONG_KIND for a request that a
        federation with groups has no use for, and those of ClientSession
"""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from qfed.secagg import client_setup
from qfed.secagg.client import ClientSession
from qfed.secagg.federation import Federation
from qfed.secagg.groups import Group
from qfed.secagg.identity import Identity
from qfed.secagg.messages import (
    ConfirmRequest,
    HelloRequest,
    RecoveryRequest,
    RevealRequest,
    SetupRequest,
    UnmaskRequest,
    UploadRequest,
)
from qfed.secagg.reasons import Reason, SecAggRefused
from qfed.secagg.statement import Place
from qfed.secagg.store import ClientStore
from qfed.secagg.wire import kind_of

_Request = (
    HelloRequest | RevealRequest | SetupRequest | ConfirmRequest | UploadRequest | UnmaskRequest | RecoveryRequest
)
_REQUESTS: dict[int, type[_Request]] = {
    kind.KIND: kind
    for kind in (
        HelloRequest,
        RevealRequest,
        SetupRequest,
        ConfirmRequest,
        UploadRequest,
        UnmaskRequest,
        RecoveryRequest,
    )
}


class GroupedSession:
    """One site in one run of a federation with groups; answers as ClientSession does."""

    def __init__(
        self, identity: Identity, federation: Federation, store: ClientStore, run: str, *, threads: int = 1
    ) -> None:
        self._whole = ClientSession(identity, federation, store, run, threads=threads)
        self.identity, self.federation = identity, federation
        self._store, self._run, self._threads = store, run, threads
        self._group: ClientSession | None = None
        self._settled = b""

    def handle(self, request: bytes) -> bytes:
        """Answer any request but an upload."""
        message = _decoded(request)
        if message.federation != self.federation.digest:
            session, place, group = self._session(message)
            reply = session.handle(request)
            self._settle(place, group)
            return reply
        if isinstance(message, HelloRequest | RevealRequest):
            return self._whole.handle(request)
        if isinstance(message, SetupRequest):
            return self._draw(message)
        raise SecAggRefused(
            Reason.WRONG_KIND,
            f"in a federation with groups={self.federation.policy.groups} only groups have keys and sums, got "
            f"kind={message.KIND} for all sites together",
        )

    def round_of(self, request: bytes) -> tuple[int, int]:
        """See ClientSession."""
        session, place, group = self._session(UploadRequest.decode(request))
        found = session.round_of(request)
        self._settle(place, group)
        return found

    def cached_upload(self, request: bytes) -> bytes | None:
        """See ClientSession."""
        return self._session(UploadRequest.decode(request))[0].cached_upload(request)

    def upload(self, request: bytes, vector: NDArray[Any]) -> bytes:
        """See ClientSession."""
        session, place, group = self._session(UploadRequest.decode(request))
        reply = session.upload(request, vector)
        self._settle(place, group)
        return reply

    def _place(self, message: _Request) -> Place:
        """Where the message belongs in the federation as a whole."""
        place = Place(self.federation.digest, self._run, message.epoch)
        place.check(place.federation, message.run, message.epoch)
        return place

    def _draw(self, message: SetupRequest) -> bytes:
        place = self._place(message)
        with self._store.transaction() as step:
            group = client_setup.draw(step, self.identity, self.federation, place, message)
            return client_setup.hello(step, self.identity, group, Place(group.digest, place.run, place.epoch))

    def _session(self, message: _Request) -> tuple[ClientSession, Place, Group]:
        """The session of the group that the message is for, which must be the one this site was drawn into."""
        place = self._place(message)
        with self._store.transaction() as step:
            group = client_setup.drawn_group(step, self.federation, place)
        if group is None or group.digest != message.federation:
            raise SecAggRefused(
                Reason.WRONG_FEDERATION,
                f"this site was not drawn into the group {message.federation.hex()[:16]} in epoch={place.epoch}",
            )
        if self._group is None or self._group.federation.digest != group.digest:
            self._group = ClientSession(self.identity, group, self._store, self._run, threads=self._threads)
        return self._group, place, group

    def _settle(self, place: Place, group: Group) -> None:
        if self._settled != group.digest:
            with self._store.transaction() as step:
                if client_setup.settle_group(step, self.federation, place, group):
                    self._settled = group.digest


def client_session(
    identity: Identity, federation: Federation, store: ClientStore, run: str, *, threads: int = 1
) -> ClientSession | GroupedSession:
    """Return a site's session in a run: the federation's policy says whether it has groups, not the aggregator."""
    kind = GroupedSession if federation.policy.groups > 1 else ClientSession
    return kind(identity, federation, store, run, threads=threads)


def _decoded(request: bytes) -> _Request:
    kind = kind_of(request)
    if kind not in _REQUESTS:
        raise SecAggRefused(Reason.WRONG_KIND, f"a site answers requests of kinds 1 to 7, got kind={kind}")
    return _REQUESTS[kind].decode(request)
