"""Groups of sites, drawn by public randomness, each of which is summed on its own.

    tr     = H(federation digest, run, epoch, (H(bundle)..., nonces...) of all sites that take part)
    k      = min(policy.groups, sites // L)
    group g = the sites at places g, g + k, g + 2k, ... when ordered by H(tr, name)

Strategies that withstand poisoned updates (Krum, median, ...) compare several updates; under secure aggregation they
compare the means of groups. The aggregator must not choose who is with whom, or it would put one honest site among
colluders: so all sites commit to a nonce before any is opened, all nonces must be opened (one that is missing ends the
setup; a site begins at most 64 without finishing one), four fifths of the roster must take part (else honest sites
could be left out until colluders fill the groups), and each site computes its group itself.

A group is then a federation of its own for one epoch: its members are its committee, its digest holds tr, and so all
keys, masks and labels belong to this group of this epoch alone. `policy.committee_size` L is the smallest group's
size; d and m count within a group. What is revealed is each group's sum (SECURITY.md).

Cost    every site verifies every bundle: 0.25 ms and 4.6 KB each
Errors  SecAggRefused: SITES_TOO_FEW, NONCE_MISSING, BAD_NONCE
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from qfed.secagg import primitives
from qfed.secagg.answers import pack, unpack
from qfed.secagg.federation import Federation
from qfed.secagg.reasons import Reason, SecAggRefused
from qfed.secagg.statement import Place
from qfed.secagg.transcript import Bundle, check_enough


@dataclass(frozen=True)
class Group(Federation):
    """A federation of some of another's sites for one epoch; what vouches for it is the draw, not a signature.

    Make one with `draw_groups` or `recall`: both take it from a verified federation.
    """

    parent: bytes
    """Digest of the federation that it is drawn from."""
    draw: bytes
    """tr: what drew it."""
    number: int
    """From 0."""

    def __post_init__(self) -> None:
        self.policy.check(len(self.roster))

    @cached_property
    def digest(self) -> bytes:
        """What identifies this group of this epoch."""
        names = "\n".join(site.name for site in self.roster)
        return primitives.digest("group", self.parent, self.draw, pack((self.number,)), names.encode())


def draw_groups(
    federation: Federation, place: Place, bundles: Sequence[Bundle], nonces: Sequence[bytes]
) -> tuple[Group, ...]:
    """Return the groups that verified bundles (in order of the roster) and all their nonces draw."""
    check_enough(federation, len(bundles))
    if len(nonces) != len(bundles):
        raise SecAggRefused(
            Reason.NONCE_MISSING, f"the nonces of all {len(bundles)} sites draw the groups, got {len(nonces)}"
        )
    for bundle, nonce in zip(bundles, nonces, strict=True):
        if primitives.digest("nonce", nonce) != bundle.commitment:
            name = federation.roster[bundle.site].name
            raise SecAggRefused(Reason.BAD_NONCE, f"the nonce of site={name} is not the one it committed to")
    tr = primitives.digest(
        "groups",
        federation.digest,
        place.run.encode(),
        place.epoch.to_bytes(8, "big"),
        b"".join(bundle.digest for bundle in bundles),
        b"".join(nonces),
    )
    ranked = sorted(
        (bundle.site for bundle in bundles),
        key=lambda site: primitives.digest("in group", tr, federation.roster[site].name.encode()),
    )
    count = min(federation.policy.groups, len(ranked) // federation.policy.committee_size)
    return tuple(_group(federation, tr, number, sorted(ranked[number::count])) for number in range(count))


def remember(federation: Federation, group: Group) -> bytes:
    """Return what a site keeps of its group: tr, number and members."""
    return group.draw + pack((group.number, *(federation.index[site.name] for site in group.roster)))


def recall(federation: Federation, data: bytes) -> Group:
    """Invert `remember`."""
    number, *sites = unpack(data[32:])
    return _group(federation, data[:32], number, sites)


def _group(federation: Federation, tr: bytes, number: int, sites: Sequence[int]) -> Group:
    return Group(
        policy=replace(federation.policy, committee_size=len(sites), groups=1),
        roster=tuple(federation.roster[site] for site in sites),
        version=federation.version,
        coordinator=federation.coordinator,
        signature=federation.signature,
        parent=federation.digest,
        draw=tr,
        number=number,
    )
