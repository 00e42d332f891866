"""A site's part in an epoch's setup: hello, reveal, setup (members) or the draw of groups, and the sealed keys.

Each step is one transaction of the store and fixes what it has seen: asked again with the same request the site
answers the same, asked with another it refuses. So a site opens its nonce for one set of bundles only, deals for
one transcript only, and installs one committee.

Errors  SecAggRefused: STALE_EPOCH, TOO_MANY_ATTEMPTS, NOT_ASKED, SPLIT_TRANSCRIPT, KEM_KEY_SWAPPED, NOT_A_MEMBER,
        COMMITTEE_TOO_SMALL, SEALED_KEY_FORGED, SEALED_KEY_UNREADABLE, SHARE_CORRUPT and those of transcript.py
"""

from __future__ import annotations

from dataclasses import replace

from qfed import collusion
from qfed.secagg import dealing, primitives
from qfed.secagg.epoch_view import CommonView, check_confirmed, open_common
from qfed.secagg.federation import Federation
from qfed.secagg.groups import Group, draw_groups, recall, remember
from qfed.secagg.identity import Identity
from qfed.secagg.messages import (
    ConfirmRequest,
    HelloBody,
    HelloRequest,
    Install,
    RevealBody,
    RevealRequest,
    SetupBody,
    SetupReply,
    SetupRequest,
    SiteEpoch,
)
from qfed.secagg.parallel import on_threads
from qfed.secagg.primitives import KemKey
from qfed.secagg.reasons import Reason, SecAggRefused
from qfed.secagg.statement import NOTHING, Place, sign_reply
from qfed.secagg.transaction import EpochRecord, Transaction
from qfed.secagg.transcript import Bundle, build_transcript, check_enough, open_bundles


def hello(step: Transaction, identity: Identity, federation: Federation, place: Place) -> bytes:
    """Return this site's bundle for the epoch: a fresh KEM key and the commitment to a fresh nonce."""
    record = step.epoch(place)
    if record is not None and record.bundle:
        return record.bundle
    latest = step.latest_epoch(place)
    if place.epoch <= latest:
        raise SecAggRefused(
            Reason.STALE_EPOCH, f"epochs go forward: this site has seen epoch={latest}, got epoch={place.epoch}"
        )
    if step.unfinished_epochs(place) >= collusion.MOST_ATTEMPTS:
        raise SecAggRefused(
            Reason.TOO_MANY_ATTEMPTS,
            f"{collusion.MOST_ATTEMPTS} setups were begun and none finished: the committee may be being drawn until it "
            "suits somebody; find out why, then start a new run",
        )
    kem, nonce = KemKey.generate(), primitives.random_key()
    body = HelloBody(kem.public(), primitives.digest("nonce", nonce)).encode()
    step.dirty = True
    bundle = sign_reply(identity, place, HelloRequest.KIND, NOTHING, step.mark, body)
    step.put_epoch(place, EpochRecord(kem=kem.secret, nonce=nonce, bundle=bundle))
    return bundle


def reveal(
    step: Transaction,
    identity: Identity,
    federation: Federation,
    place: Place,
    bundles: tuple[bytes, ...],
    threads: int = 1,
) -> bytes:
    """Check all bundles, then open this site's nonce for exactly this set of them."""
    record = _begun(step, place)
    opened = open_bundles(federation, place, bundles, threads)
    check_enough(federation, len(opened))
    _check_own(opened, record, federation.index[identity.name])
    digests = b"".join(bundle.digest for bundle in opened)
    if record.revealed not in (b"", digests):
        raise SecAggRefused(Reason.SPLIT_TRANSCRIPT, "this site opened its nonce for other bundles of the epoch")
    if not record.revealed:
        record = replace(record, revealed=digests)
        step.put_epoch(place, record)
    body = RevealBody(record.nonce).encode()
    about = primitives.digest("revealed", digests)
    return sign_reply(identity, place, RevealRequest.KIND, about, step.mark, body)


def setup(
    step: Transaction,
    identity: Identity,
    federation: Federation,
    place: Place,
    message: SetupRequest,
    threads: int = 1,
) -> bytes:
    """Deal this member's keys for the transcript that bundles and nonces make."""
    record = _begun(step, place)
    opened = open_bundles(federation, place, message.bundles, threads)
    me = federation.index[identity.name]
    _check_own(opened, record, me)
    sites = [bundle.site for bundle in opened]
    digests = [bundle.digest for bundle in opened]
    commitments = {bundle.site: bundle.commitment for bundle in opened}
    transcript = build_transcript(federation, place, sites, digests, commitments, message.nonces)
    _check_revealed(federation, record, me, transcript.openers, digests)
    if record.transcript not in (b"", transcript.digest):
        raise SecAggRefused(Reason.SPLIT_TRANSCRIPT, "this member dealt keys for another transcript of the epoch")
    if record.setup:
        return record.setup
    if me not in transcript.drawn:
        raise SecAggRefused(Reason.NOT_A_MEMBER, "this site is not on the committee that the transcript draws")
    deal = dealing.deal(federation, transcript, opened, me)
    step.dirty = True
    header = sign_reply(identity, place, SetupRequest.KIND, transcript.digest, step.mark, deal.body.encode())
    reply = SetupReply(header, deal.sealed, deal.rows, deal.deposits).encode()
    step.put_epoch(
        place, replace(record, transcript=transcript.digest, dealt=header_digest(header) + deal.keys, setup=reply)
    )
    return reply


def draw(step: Transaction, identity: Identity, federation: Federation, place: Place, message: SetupRequest) -> Group:
    """Check the bundles and nonces that draw the groups, and fix which one this site is in."""
    record = _begun(step, place)
    opened = open_bundles(federation, place, message.bundles)
    _check_own(opened, record, federation.index[identity.name])
    if record.revealed != b"".join(bundle.digest for bundle in opened):
        # Not a smaller set either: whoever may leave sites out after the nonces are known draws until it suits him.
        raise SecAggRefused(Reason.SPLIT_TRANSCRIPT, "groups are drawn from the bundles this site opened its nonce for")
    groups = draw_groups(federation, place, opened, message.nonces)
    mine = next(group for group in groups if identity.name in group.index)
    step.put_epoch(place, replace(record, transcript=mine.draw, setup=remember(federation, mine)))
    return mine


def drawn_group(step: Transaction, federation: Federation, place: Place) -> Group | None:
    """Return the group that this site was drawn into in the place's epoch, or None."""
    record = step.epoch(place)
    kept = b"" if record is None else record.installed or record.setup
    return recall(federation, kept) if kept else None


def settle_group(step: Transaction, federation: Federation, place: Place, group: Group) -> bool:
    """If the group's keys are installed, finish the draw and forget the keys of earlier groups; whether it is so."""
    record = step.epoch(place)
    if record is None or installed(step, replace(place, federation=group.digest)) is None:
        return False
    if not record.installed:
        for epoch in step.epochs_before(place):
            before = replace(place, epoch=epoch)
            if (earlier := drawn_group(step, federation, before)) is not None:
                step.forget_before(replace(before, federation=earlier.digest, epoch=epoch + 1))
        step.forget_before(place)
        step.put_epoch(place, EpochRecord(installed=record.setup))
    return True


def header_digest(header: bytes) -> bytes:
    """Return what identifies a member's signed header."""
    return primitives.digest("header", header)


def confirm(
    step: Transaction, identity: Identity, federation: Federation, place: Place, common: bytes | memoryview
) -> bytes:
    """Sign the view that this member is shown: one an epoch, and the only one that it will install."""
    record = _begun(step, place)
    view = open_common(federation, place, common)
    me = federation.index[identity.name]
    _check_view(federation, record, view, me)
    if me not in view.members:
        raise SecAggRefused(Reason.NOT_A_MEMBER, "only members of the committee shown confirm it")
    if not record.confirmed:
        step.put_epoch(place, replace(record, confirmed=view.digest))
    return sign_reply(identity, place, ConfirmRequest.KIND, view.digest, step.mark, b"")


def install(
    step: Transaction,
    identity: Identity,
    federation: Federation,
    place: Place,
    data: bytes | memoryview,
    threads: int = 1,
) -> SiteEpoch:
    """Check the epoch's committee and open what its members sealed to this site; forget what is not needed again."""
    record = _begun(step, place)
    message = Install.decode(data)
    view = open_common(federation, place, message.common, threads)
    me = federation.index[identity.name]
    _check_view(federation, record, view, me)
    check_confirmed(federation, place, view, message.confirmations)
    if not len(message.sealed) == len(message.paths) == len(message.rows) == len(view.members):
        raise SecAggRefused(Reason.SEALED_KEY_FORGED, f"one sealed key of each of {len(view.members)} members is due")
    kem = KemKey(record.kem)
    sealed = list(
        zip(
            view.members,
            view.bodies,
            zip(message.sealed, message.paths, message.rows, strict=True),
            strict=True,
        )
    )

    def open_one(one: tuple[int, SetupBody, tuple[bytes, bytes, bytes]]) -> tuple[bytes, bytes]:
        member, body, parts = one
        return dealing.open_sealed(federation, view.transcript, member, me, body, kem, parts)

    opened = on_threads(open_one, sealed, threads)
    keys, shares = b"".join(key for key, _ in opened), b"".join(given for _, given in opened)
    state = SiteEpoch(view.digest, view.transcript.digest, view.transcript.sites, view.members, keys, shares)
    step.forget_before(place)
    step.put_epoch(place, EpochRecord(dealt=record.dealt, installed=state.encode()))
    return state


def installed(step: Transaction, place: Place) -> SiteEpoch | None:
    """Return the installed epoch, or None."""
    record = step.epoch(place)
    return None if record is None or not record.installed else SiteEpoch.decode(record.installed)


def dealt_keys(step: Transaction, place: Place) -> bytes:
    """Return this member's own keys K_iu by site."""
    record = step.epoch(place)
    return b"" if record is None else record.dealt[32:]


def _begun(step: Transaction, place: Place) -> EpochRecord:
    record = step.epoch(place)
    if record is None or not record.bundle:
        raise SecAggRefused(
            Reason.NOT_ASKED, f"this site has no open setup of epoch={place.epoch}; a setup begins with a hello"
        )
    return record


def _check_own(bundles: tuple[Bundle, ...], record: EpochRecord, me: int) -> None:
    mine = [bundle for bundle in bundles if bundle.site == me]
    if not mine:
        raise SecAggRefused(Reason.BAD_TRANSCRIPT, "this site is asked to take part in a transcript without it")
    if mine[0].data != record.bundle:
        raise SecAggRefused(Reason.KEM_KEY_SWAPPED, "the bundle shown as this site's is not the one it sent")


def _check_revealed(
    federation: Federation, record: EpochRecord, me: int, who: tuple[int, ...], digests: list[bytes]
) -> None:
    """Refuse a transcript other than the one for which this site opened its nonce.

    Also where its nonce does not count: else nonces that were opened for one set of bundles could be used to try
    others, offline, on the sites that are no openers there. In a small federation sites that did not open are left
    out, so the transcript may hold fewer bundles.
    """
    if me not in who and not record.revealed:
        return
    known = {record.revealed[at : at + 32] for at in range(0, len(record.revealed), 32)}
    small = len(federation.roster) <= collusion.ALL_SITES_UP_TO
    if not (set(digests) <= known if small else set(digests) == known):
        raise SecAggRefused(Reason.SPLIT_TRANSCRIPT, "the transcript is not of the bundles this site opened for")


def _check_view(federation: Federation, record: EpochRecord, view: CommonView, me: int) -> None:
    transcript = view.transcript
    if me not in transcript.sites:
        raise SecAggRefused(Reason.BAD_TRANSCRIPT, "this site is asked to take part in a transcript without it")
    if view.digests[transcript.sites.index(me)] != primitives.digest("bundle", record.bundle):
        raise SecAggRefused(Reason.KEM_KEY_SWAPPED, "the bundle shown as this site's is not the one it sent")
    _check_revealed(federation, record, me, transcript.openers, list(view.digests))
    if record.transcript not in (b"", transcript.digest):
        raise SecAggRefused(Reason.SPLIT_TRANSCRIPT, "this member dealt keys for another transcript of the epoch")
    if record.confirmed not in (b"", view.digest):
        raise SecAggRefused(Reason.SPLIT_VIEW, "this member confirmed another committee of the epoch")
    if me in view.members and view.headers[view.members.index(me)] != record.dealt[:32]:
        raise SecAggRefused(Reason.SEALED_KEY_FORGED, "the setup shown as this member's is not the one it sent")
