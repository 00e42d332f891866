"""What an epoch's keys are bound to, and who is on its committee.

    bundle  = signed {KEM key, H(nonce)} of one site
    tr      = H(federation digest, run, epoch, (site, H(bundle))..., openers' nonces...)
    drawn   = all sites                              (a roster of at most 32)
            = the first L sites by H(tr, name)       (a larger one)

Every site's nonce is committed to before any is opened, so nobody who opens after the bundles are fixed can steer tr.
In a larger roster only the 32 openers' nonces count (the first by H(all bundles, name)) and all 32 must be there:
a server that could choose which to leave out could draw as often as it likes. Other sites may vanish freely.
A site left out cannot be replaced by another draw: it stays among the candidates.

Cost    one hybrid verification a bundle (0.25 ms), once per process and transcript
Errors  SecAggRefused: SYBIL, DUPLICATE_SITE, KEM_KEY_SWAPPED, KEM_KEY_INVALID, SITES_TOO_FEW, BAD_NONCE,
        NONCE_MISSING, BAD_TRANSCRIPT and those of a signed reply
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import pairwise

from qfed import collusion
from qfed.secagg import primitives
from qfed.secagg.federation import Federation
from qfed.secagg.messages import HelloBody, HelloRequest
from qfed.secagg.parallel import on_threads
from qfed.secagg.reasons import Reason, SecAggRefused
from qfed.secagg.statement import NOTHING, Place, open_reply, site_of


@dataclass(frozen=True)
class Bundle:
    """One site's verified hello."""

    site: int
    data: bytes = field(repr=False)
    kem: bytes = field(repr=False)
    commitment: bytes

    @cached_property
    def digest(self) -> bytes:
        return primitives.digest("bundle", self.data)

    @cached_property
    def public(self) -> primitives.KemPublic:
        """The KEM key, parsed (once: a process that holds many sites seals to it from each member)."""
        return primitives.kem_public(self.kem)


@dataclass(frozen=True)
class _Case:
    """Key of the cache: verification depends on these bytes alone, so one process verifies a transcript once."""

    federation_digest: bytes
    place: Place
    digest: bytes
    federation: Federation = field(compare=False)
    bundles: tuple[bytes, ...] = field(compare=False)
    threads: int = field(compare=False)


def open_bundle(federation: Federation, place: Place, data: bytes, site: str | None = None) -> Bundle:
    """Return a verified bundle of `site` (or of whom it says)."""
    name = site_of(data) if site is None else site
    index = federation.index[federation.site(name).name]
    try:
        body, _ = open_reply(federation, place, HelloRequest.KIND, NOTHING, data, name)
    except SecAggRefused as error:
        if error.reason is Reason.BODY_TAMPERED:
            raise SecAggRefused(
                Reason.KEM_KEY_SWAPPED, f"the KEM key in the bundle of site={name} is not the one it signed"
            ) from error
        raise
    hello = HelloBody.decode(body)
    bundle = Bundle(index, bytes(data), bytes(hello.kem), hello.commitment)
    _ = bundle.public  # refused here if it cannot be used
    return bundle


def open_bundles(
    federation: Federation, place: Place, bundles: Sequence[bytes], threads: int = 1
) -> tuple[Bundle, ...]:
    """Return all bundles verified (on up to `threads` cores); they must come in roster order, each site once."""
    place = Place(place.federation, place.run, place.epoch)
    return _open_bundles(
        _Case(federation.digest, place, primitives.digest("bundles", *bundles), federation, tuple(bundles), threads)
    )


@lru_cache(maxsize=4)
def _open_bundles(case: _Case) -> tuple[Bundle, ...]:
    opened = tuple(on_threads(lambda data: open_bundle(case.federation, case.place, data), case.bundles, case.threads))
    check_order([bundle.site for bundle in opened])
    return opened


def check_order(sites: Sequence[int]) -> None:
    """Raise SecAggRefused unless the sites are in roster order, each once."""
    for before, after in pairwise(sites):
        if after == before:
            raise SecAggRefused(Reason.DUPLICATE_SITE, f"each site is in a transcript once, got index={after} twice")
        if after < before:
            raise SecAggRefused(Reason.BAD_TRANSCRIPT, "the sites of a transcript come in order of the roster")


def least_sites(federation: Federation) -> int:
    """Sites below which an epoch has no committee or no quorum."""
    policy, roster = federation.policy, len(federation.roster)
    if policy.groups > 1:
        return collusion.least_for_groups(roster)
    return max(policy.min_survivors, policy.committee_size if roster > collusion.ALL_SITES_UP_TO else policy.threshold)


def check_enough(federation: Federation, sites: int) -> None:
    """Raise SecAggRefused(SITES_TOO_FEW) if no committee and no quorum can come from so few."""
    least = least_sites(federation)
    if sites < least:
        raise SecAggRefused(Reason.SITES_TOO_FEW, f"an epoch takes at least {least} sites, got sites={sites}")


def openers(federation: Federation, sites: Sequence[int], digests: Sequence[bytes]) -> tuple[int, ...]:
    """Return the sites whose nonces count, in roster order: all, or 32 of a larger roster that draws no groups."""
    if len(federation.roster) <= collusion.ALL_SITES_UP_TO or federation.policy.groups > 1:
        return tuple(sites)
    seed = primitives.digest("openers", *digests)
    ranked = sorted(sites, key=lambda s: primitives.digest("opener", seed, federation.roster[s].name.encode()))
    return tuple(sorted(ranked[: collusion.OPENERS]))


@dataclass(frozen=True)
class Transcript:
    """A fixed setup: the sites that take part, their bundles' digests, the opened nonces, the committee drawn."""

    digest: bytes
    sites: tuple[int, ...]
    drawn: tuple[int, ...]
    openers: tuple[int, ...]


def build_transcript(
    federation: Federation,
    place: Place,
    sites: Sequence[int],
    digests: Sequence[bytes],
    commitments: Mapping[int, bytes],
    nonces: Sequence[bytes],
) -> Transcript:
    """Check the openers' nonces against their commitments and return the transcript with its committee."""
    check_order(sites)
    if len(digests) != len(sites) or any(site >= len(federation.roster) for site in sites):
        raise SecAggRefused(Reason.SYBIL, "a transcript names sites of the roster, each with its bundle's digest")
    check_enough(federation, len(sites))
    who = openers(federation, sites, digests)
    if len(nonces) != len(who):
        raise SecAggRefused(
            Reason.NONCE_MISSING, f"all {len(who)} openers' nonces make the transcript, got {len(nonces)}"
        )
    for site, nonce in zip(who, nonces, strict=True):
        if primitives.digest("nonce", nonce) != commitments[site]:
            raise SecAggRefused(
                Reason.BAD_NONCE, f"the nonce of site={federation.roster[site].name} is not the one it committed to"
            )
    tr = primitives.digest(
        "transcript",
        federation.digest,
        place.run.encode(),
        place.epoch.to_bytes(8, "big"),
        b"".join(site.to_bytes(2, "big") for site in sites),
        b"".join(digests),
        b"".join(nonces),
    )
    drawn = tuple(sites)
    if len(federation.roster) > collusion.ALL_SITES_UP_TO:
        ranked = sorted(sites, key=lambda s: primitives.digest("member", tr, federation.roster[s].name.encode()))
        drawn = tuple(sorted(ranked[: federation.policy.committee_size]))
    return Transcript(tr, tuple(sites), drawn, who)
