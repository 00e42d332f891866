"""What every site of an epoch must see alike: transcript, committee, and the members' signed headers.

    view = H(tr, headers of the members that finished the setup)

The view goes into every stream key, so masks cancel only among sites and members that were shown the same
committee. Members that did not finish count as lost: L - |members| <= d, and that much less can be recovered later.

Two honest sites must not be shown different subsets of the members, or lost members of the one view could be opened by
the members of the other, whose allowance is larger. So a view that lacks a drawn member is used only when L - d members
have signed it; an honest member signs one, and any two sets of L - d have L - 2d > c members in common. A complete view
is the only one of its kind (a member signs one header an epoch) and needs no further trip.

A plain site checks the openers' bundles, the members' headers, and that every site named is in the roster. A header
is signed for one transcript, and the openers and the members have checked all of its bundles, so a site verifies at
most 32 + L signatures.

Errors  SecAggRefused: COMMITTEE_TOO_SMALL, NOT_CONFIRMED, BAD_TRANSCRIPT, NOT_A_MEMBER and those of transcript.py
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from qfed.secagg import primitives
from qfed.secagg.federation import Federation
from qfed.secagg.messages import Common, ConfirmRequest, SetupBody, SetupRequest
from qfed.secagg.parallel import on_threads
from qfed.secagg.reasons import Reason, SecAggRefused
from qfed.secagg.statement import Place, open_reply, site_of
from qfed.secagg.transcript import Transcript, build_transcript, check_order, open_bundles, openers


@dataclass(frozen=True)
class CommonView:
    """The verified common part of an epoch."""

    digest: bytes
    transcript: Transcript
    digests: tuple[bytes, ...]
    members: tuple[int, ...]
    bodies: tuple[SetupBody, ...]
    headers: tuple[bytes, ...]


@dataclass(frozen=True)
class _Case:
    """Key of the cache: one process verifies a view once."""

    federation_digest: bytes
    place: Place
    digest: bytes
    federation: Federation = field(compare=False)
    data: bytes = field(compare=False)
    threads: int = field(compare=False)


def open_common(federation: Federation, place: Place, data: bytes | memoryview, threads: int = 1) -> CommonView:
    """Return the common part of the place's epoch, verified on up to `threads` cores."""
    place = Place(place.federation, place.run, place.epoch)
    digest = primitives.digest("common", data)
    return _open_common(_Case(federation.digest, place, digest, federation, bytes(data), threads))


@lru_cache(maxsize=4)
def _open_common(case: _Case) -> CommonView:
    federation, place, common = case.federation, case.place, Common.decode(case.data)
    sites, digests = common.sites, common.digests
    check_order(sites)
    if len(sites) != len(digests) or any(site >= len(federation.roster) for site in sites):
        raise SecAggRefused(Reason.SYBIL, "a transcript names sites of the roster, each with its bundle's digest")
    opened = open_bundles(federation, place, common.bundles, case.threads)
    named = dict(zip(sites, digests, strict=True))
    if any(named.get(bundle.site) != bundle.digest for bundle in opened):
        raise SecAggRefused(Reason.BAD_TRANSCRIPT, "a bundle shown in full is not the one that the transcript names")
    commitments = {bundle.site: bundle.commitment for bundle in opened}
    if not set(openers(federation, sites, digests)) <= set(commitments):
        raise SecAggRefused(Reason.BAD_TRANSCRIPT, "the bundles of all openers are shown in full")
    transcript = build_transcript(federation, place, sites, digests, commitments, common.nonces)

    def open_header(header: bytes) -> tuple[int, SetupBody]:
        name = site_of(header)
        member = federation.index[federation.site(name).name]
        if member not in transcript.drawn:
            raise SecAggRefused(Reason.NOT_A_MEMBER, f"site={name} is not on the committee that the transcript draws")
        body, _ = open_reply(federation, place, SetupRequest.KIND, transcript.digest, header, name)
        return member, SetupBody.decode(body)

    headers = on_threads(open_header, common.headers, case.threads)
    members = tuple(member for member, _ in headers)
    bodies = tuple(body for _, body in headers)
    check_order(members)
    check_committee(federation, len(members))
    marks = tuple(primitives.digest("header", header) for header in common.headers)
    return CommonView(view_digest(transcript, common.headers), transcript, digests, members, bodies, marks)


def check_confirmed(federation: Federation, place: Place, view: CommonView, confirmations: Sequence[bytes]) -> None:
    """Raise SecAggRefused(NOT_CONFIRMED) if a view that lacks a drawn member is not signed by L - d members."""
    if len(view.members) == federation.policy.committee_size:
        return
    signers = {confirmer(federation, place, view, data) for data in confirmations}
    if len(signers) < federation.policy.threshold:
        raise SecAggRefused(
            Reason.NOT_CONFIRMED,
            f"a committee that lacks a drawn member is used when {federation.policy.threshold} members have signed it, "
            f"got {len(signers)}",
        )


def confirmer(federation: Federation, place: Place, view: CommonView, data: bytes) -> int:
    """Return the member that signed this view in a reply to a ConfirmRequest."""
    name = site_of(data)
    member = federation.index[federation.site(name).name]
    if member not in view.members:
        raise SecAggRefused(Reason.NOT_A_MEMBER, f"site={name} confirms a committee that it is not on")
    open_reply(
        federation, Place(place.federation, place.run, place.epoch), ConfirmRequest.KIND, view.digest, data, name
    )
    return member


def view_digest(transcript: Transcript, headers: Sequence[bytes]) -> bytes:
    """Return what a view is known by."""
    return primitives.digest("view", transcript.digest, *headers)


def check_committee(federation: Federation, members: int) -> None:
    """Raise SecAggRefused(COMMITTEE_TOO_SMALL) if more than d of L members did not finish the setup."""
    policy = federation.policy
    if members < policy.threshold:
        raise SecAggRefused(
            Reason.COMMITTEE_TOO_SMALL,
            f"at least {policy.threshold} of {policy.committee_size} members finish a setup, got {members}",
        )
