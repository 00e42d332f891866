"""A site's side of the protocol: requests in, replies out, everything that must survive in its store.

    y_i = enc(x_i) + sum_{u on the committee} PRG(h_iu,r)  mod 2^w          (upload)
    M_u = sum_{i in U} PRG(h_iu,r)  mod 2^w                                 (unmask, members, one U a round)
    shares of rho_v,r for v in D, |D| <= d over all requests of the round   (recovery, members)

The aggregator is not trusted: each request is checked against the federation file, the signed statements of other
sites and this site's own past. A label (federation, run, epoch, round) is burnt on disk, with the bytes that it
allows, before they leave; asked again, the site sends the same bytes or nothing.

Cost    an upload: L * size * w / 8 bytes of AES-CTR; a member's unmask: |U| * size * w / 8 bytes
Errors  SecAggRefused (what came must not be accepted), SecAggMisuse (what is to be sent must not), SecAggState
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qfed.secagg import client_setup
from qfed.secagg.answers import about_answer, pack, unpack
from qfed.secagg.dealing import mask_key, stream_key
from qfed.secagg.federation import Federation
from qfed.secagg.identity import Identity
from qfed.secagg.masking import add_streams
from qfed.secagg.messages import (
    ConfirmRequest,
    HelloRequest,
    RecoveryRequest,
    RevealRequest,
    SetupRequest,
    SiteEpoch,
    UnmaskBody,
    UnmaskRequest,
    UploadRequest,
)
from qfed.secagg.primitives import KEY_SIZE
from qfed.secagg.reasons import Reason, SecAggMisuse, SecAggRefused
from qfed.secagg.shamir import SHARE_SIZE
from qfed.secagg.statement import Place, check_receipt, sign_reply
from qfed.secagg.store import ClientStore
from qfed.secagg.transaction import Answer, Transaction
from qfed.secagg.wire import kind_of

LARGEST_VECTOR = 1 << 28  # coordinates; more is refused before any memory is taken


class ClientSession:
    """One site in one run of one federation. `threads` is how many cores the expansion of masks may use."""

    def __init__(
        self, identity: Identity, federation: Federation, store: ClientStore, run: str, *, threads: int = 1
    ) -> None:
        if federation.index.get(identity.name) is None or federation.site(identity.name) != identity.public:
            raise SecAggMisuse(
                Reason.NOT_IN_ROSTER,
                f"site={identity.name} with fingerprint {identity.fingerprint()} is not in version "
                f"{federation.version} of {federation.policy.federation_id}; ask the coordinator to add it",
            )
        with store.transaction() as step:
            seen = step.federation_version()
            if federation.version < seen:
                raise SecAggMisuse(
                    Reason.FEDERATION_OUTDATED,
                    f"this site has used version {seen} of its federation file, got version={federation.version}; "
                    "give it the newest file",
                )
            if federation.version > seen:
                step.put_federation_version(federation.version)
                step.forget_all_but(federation.digest)  # an older version is refused from now on
        self.identity = identity
        self.federation = federation
        self._store = store
        self._run = run
        self._threads = threads
        self._index = federation.index[identity.name]

    def handle(self, request: bytes) -> bytes:
        """Answer any request but an upload. Raises SecAggRefused with the rule that the request breaks."""
        match kind_of(request):
            case HelloRequest.KIND:
                return self._hello(HelloRequest.decode(request))
            case RevealRequest.KIND:
                return self._reveal(RevealRequest.decode(request))
            case SetupRequest.KIND:
                return self._setup(SetupRequest.decode(request))
            case ConfirmRequest.KIND:
                return self._confirm(ConfirmRequest.decode(request))
            case UnmaskRequest.KIND:
                return self._unmask(UnmaskRequest.decode(request))
            case RecoveryRequest.KIND:
                return self._recover(RecoveryRequest.decode(request))
            case kind:
                raise SecAggRefused(Reason.WRONG_KIND, f"a site answers requests of kinds 1 to 7, got kind={kind}")

    def round_of(self, request: bytes) -> tuple[int, int]:
        """Return the verified (epoch, round) of an upload request, installing the epoch's keys if it brings them."""
        message = UploadRequest.decode(request)
        place = self._place(message)
        with self._store.transaction() as step:
            self._check_label(step, place)
            self._installed(step, place, message)
        return place.epoch, place.round

    def cached_upload(self, request: bytes) -> bytes | None:
        """Return the bytes that this label has already sent, so that a site does not train twice, or None."""
        message = UploadRequest.decode(request)
        place = self._place(message)
        with self._store.transaction() as step:
            known = step.label(place)
        return None if known is None else known[1]

    def upload(self, request: bytes, vector: NDArray[Any]) -> bytes:
        """Return the masked vector under the request's label; asked again, the same bytes (`vector` is not read).

        vector  ring integers of dtype policy.dtype, shape (size of the request,)
        """
        message = UploadRequest.decode(request)
        place = self._place(message)
        with self._store.transaction() as step:
            known = step.label(place)
            if known is not None and known[1] is not None:
                return known[1]
            self._check_label(step, place)
            state = self._installed(step, place, message)
            dtype = self.federation.policy.dtype
            if vector.shape != (message.size,) or vector.dtype != dtype:
                raise SecAggMisuse(
                    Reason.SIZE_MISMATCH,
                    f"the round takes a vector of shape ({message.size},) and dtype {dtype}, got {vector.shape}, "
                    f"{vector.dtype}; encode the update with the layout of this run",
                )
            keys = [bytes(state.keys[at : at + KEY_SIZE]) for at in range(0, len(state.keys), KEY_SIZE)]
            masked = np.empty(message.size, dtype)
            add_streams(masked, self._streams(state, place, keys), start=vector, threads=self._threads)
            step.dirty = True
            body = masked.data.cast("B")
            reply = sign_reply(
                self.identity, place, UploadRequest.KIND, state.view, step.mark, body, threads=self._threads
            )
            step.burn_label(place, message.size, reply)
        return reply

    # -- epoch setup ---------------------------------------------------------------------------------------------

    def _hello(self, message: HelloRequest) -> bytes:
        place = self._place(message)
        with self._store.transaction() as step:
            check_receipt(self.identity.public, step.mark, message.receipt)
            return client_setup.hello(step, self.identity, self.federation, place)

    def _reveal(self, message: RevealRequest) -> bytes:
        place = self._place(message)
        with self._store.transaction() as step:
            return client_setup.reveal(step, self.identity, self.federation, place, message.bundles, self._threads)

    def _setup(self, message: SetupRequest) -> bytes:
        place = self._place(message)
        with self._store.transaction() as step:
            return client_setup.setup(step, self.identity, self.federation, place, message, self._threads)

    def _confirm(self, message: ConfirmRequest) -> bytes:
        place = self._place(message)
        with self._store.transaction() as step:
            return client_setup.confirm(step, self.identity, self.federation, place, message.common)

    def _installed(self, step: Transaction, place: Place, message: UploadRequest | UnmaskRequest) -> SiteEpoch:
        """Return the epoch's keys, installing them from the request when they are new."""
        check_receipt(self.identity.public, step.mark, message.receipt)
        if place.round >= self.federation.policy.epoch_rounds:
            raise SecAggRefused(
                Reason.ROUND_BEYOND_EPOCH,
                f"an epoch serves rounds 0 to {self.federation.policy.epoch_rounds - 1}, got round={place.round}",
            )
        if message.size > LARGEST_VECTOR:
            raise SecAggRefused(
                Reason.SIZE_MISMATCH, f"a vector has at most {LARGEST_VECTOR} coordinates, got size={message.size}"
            )
        state = client_setup.installed(step, place)
        if state is None and len(message.install):
            state = client_setup.install(step, self.identity, self.federation, place, message.install, self._threads)
        return self._check_view(state, message.view)

    def _check_view(self, state: SiteEpoch | None, view: bytes) -> SiteEpoch:
        if state is None:
            raise SecAggRefused(
                Reason.NOT_INSTALLED, "this site has no keys of that epoch; it joins again at the next one"
            )
        if state.view != view:
            raise SecAggRefused(Reason.WRONG_VIEW, "the request is about another committee than the one installed")
        return state

    # -- a round -------------------------------------------------------------------------------------------------

    def _check_label(self, step: Transaction, place: Place) -> None:
        known = step.label(place)
        if known is not None and known[1] is None:
            raise SecAggRefused(
                Reason.LABEL_REPEATED,
                f"epoch={place.epoch}, round={place.round} was answered and its bytes are no longer kept; go on",
            )
        latest = step.latest_round(place)
        if known is None and place.round < latest:
            raise SecAggRefused(
                Reason.LABEL_STALE, f"rounds go forward: this site has answered round={latest}, got {place.round}"
            )

    def _streams(self, state: SiteEpoch, place: Place, keys: list[bytes]) -> list[bytes]:
        return [stream_key(mask_key(key, state.transcript, place.round), state.view) for key in keys]

    def _unmask(self, message: UnmaskRequest) -> bytes:
        place = self._place(message)
        policy = self.federation.policy
        with self._store.transaction() as step:
            state = self._installed(step, place, message)
            size = step.label_size(place)
            if size not in (None, message.size):
                raise SecAggRefused(
                    Reason.SIZE_MISMATCH, f"this site's upload has size={size}, the request says {message.size}"
                )
            shares = self._fix_answer(step, place, state, message.survivors, message.lost, message.size)
            dealt = client_setup.dealt_keys(step, place)
            position = {site: at for at, site in enumerate(state.sites)}
            keys = [dealt[KEY_SIZE * position[i] : KEY_SIZE * (position[i] + 1)] for i in message.survivors]
            total = np.zeros(message.size, policy.dtype)
            add_streams(total, self._streams(state, place, keys), threads=self._threads)
            body = UnmaskBody(total.data.cast("B"), shares).encode()
            about = about_answer(state.view, message.survivors, message.lost, message.size)
            return sign_reply(self.identity, place, UnmaskRequest.KIND, about, step.mark, body, threads=self._threads)

    def _recover(self, message: RecoveryRequest) -> bytes:
        place = self._place(message)
        with self._store.transaction() as step:
            state = self._check_view(client_setup.installed(step, place), message.view)
            shares = self._fix_answer(step, place, state, message.survivors, message.lost, None)
            about = about_answer(state.view, message.survivors, message.lost, 0)
            body = UnmaskBody(b"", shares).encode()
            return sign_reply(self.identity, place, RecoveryRequest.KIND, about, step.mark, body)

    def _fix_answer(
        self,
        step: Transaction,
        place: Place,
        state: SiteEpoch,
        survivors: tuple[int, ...],
        lost: tuple[int, ...],
        size: int | None,
    ) -> tuple[bytes, ...]:
        """Check U and D, write them down as this round's only ones, and return the shares for D.

        `size` is None in a recovery, which sums nothing.
        """
        if self._index not in state.members:
            raise SecAggRefused(Reason.NOT_A_MEMBER, "this site is not on the committee of that epoch")
        self._check_survivors(state, survivors)
        self._check_lost(state, lost)
        before = step.answer(place)
        if before is not None and before.survivors != pack(survivors):
            raise SecAggRefused(
                Reason.SURVIVORS_SPLIT, "a member answers one set of survivors a round, and this is a second one"
            )
        if before is not None and size is not None and before.size not in (0, size):
            raise SecAggRefused(Reason.SIZE_MISMATCH, f"the sum was asked with size={before.size} before, got {size}")
        ever = set(lost) | set(() if before is None else unpack(before.lost))
        policy = self.federation.policy
        allowed = policy.recoverable_drops - (policy.committee_size - len(state.members))
        if len(ever) > allowed:
            raise SecAggRefused(
                Reason.LOST_TOO_MANY,
                f"a round recovers at most {allowed} more members over all its requests, got {len(ever)}",
            )
        answer = Answer(size or (before.size if before else 0), pack(survivors), pack(tuple(sorted(ever))))
        if answer != before:
            step.put_answer(place, answer)
        rounds = policy.epoch_rounds
        starts = [SHARE_SIZE * (rounds * state.members.index(v) + place.round) for v in lost]
        return tuple(bytes(state.shares[at : at + SHARE_SIZE]) for at in starts)

    def _check_survivors(self, state: SiteEpoch, survivors: tuple[int, ...]) -> None:
        least = self.federation.policy.min_survivors
        if len(set(survivors)) != len(survivors) or list(survivors) != sorted(survivors):
            raise SecAggRefused(
                Reason.SURVIVOR_DUPLICATED, "survivors are in order of the roster, each once; a site counts once"
            )
        if not set(survivors) <= set(state.sites):
            raise SecAggRefused(Reason.SURVIVOR_UNREGISTERED, "survivors are sites of this epoch's transcript")
        if len(survivors) < least:
            raise SecAggRefused(
                Reason.SURVIVORS_TOO_FEW, f"no sum of fewer than {least} sites is opened, got {len(survivors)}"
            )

    def _check_lost(self, state: SiteEpoch, lost: tuple[int, ...]) -> None:
        if self._index in lost:
            raise SecAggRefused(Reason.LOST_SELF, "a member that is asked is not lost; it opens no secret of its own")
        if len(set(lost)) != len(lost) or list(lost) != sorted(lost):
            raise SecAggRefused(Reason.LOST_DUPLICATED, "lost members are in order of the roster, each once")
        if not set(lost) <= set(state.members):
            raise SecAggRefused(Reason.LOST_UNREGISTERED, "lost members are members of this epoch's committee")

    def _place(
        self,
        message: HelloRequest
        | RevealRequest
        | SetupRequest
        | ConfirmRequest
        | UploadRequest
        | UnmaskRequest
        | RecoveryRequest,
    ) -> Place:
        """Check federation and run, and return where the message belongs."""
        place = Place(self.federation.digest, self._run, message.epoch, getattr(message, "round", 0))
        place.check(message.federation, message.run, message.epoch, place.round)
        return place
