"""An epoch as the aggregator keeps it: what every site was shown, and what each member sealed and deposited.

Nothing in it is secret from the aggregator; `to_bytes` lets it survive a restart, and `from_bytes` verifies all
of it again.

Memory  L * n * 1.2 KB sealed keys (until all sites have theirs), L * n * 32 E bytes of deposits
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Self

from qfed.secagg import dealing, merkle
from qfed.secagg.epoch_view import CommonView, confirmer, open_common
from qfed.secagg.federation import Federation
from qfed.secagg.messages import Common, ConfirmRequest, EpochState, Install, SetupReply
from qfed.secagg.reasons import Reason, SecAggRefused
from qfed.secagg.statement import Place, site_of
from qfed.secagg.transcript import Bundle, Transcript

Tree = list[list[bytes]]  # of hashes (merkle.py)


class ServerEpoch:
    """A finished setup. `installed` are the names of the sites known to hold their keys."""

    def __init__(
        self,
        federation: Federation,
        place: Place,
        common: bytes,
        setups: Mapping[int, SetupReply],
        trees: Mapping[int, Tree] | None = None,
        threads: int = 1,
    ) -> None:
        self.federation = federation
        self.place = place
        self.installed: set[str] = set()
        self._confirmations: dict[int, bytes] = {}
        self._common = common
        self._setups = dict(setups)
        self._view: CommonView = open_common(federation, place, common, threads)
        self._trees = trees or {
            member: dealing.check_deal(federation, self.transcript, member, body, self._setups[member])
            for member, body in zip(self.members, self._view.bodies, strict=True)
        }

    @classmethod
    def assemble(
        cls,
        federation: Federation,
        place: Place,
        transcript: Transcript,
        bundles: tuple[Bundle, ...],
        nonces: tuple[bytes, ...],
        checked: Mapping[int, tuple[SetupReply, Tree]],
        threads: int = 1,
    ) -> Self:
        """Put together what every site must see from the verified parts of a setup."""
        setups = {member: setup for member, (setup, _) in checked.items()}
        shown = set(transcript.openers)
        common = Common(
            transcript.sites,
            tuple(bundle.digest for bundle in bundles),
            tuple(bundle.data for bundle in bundles if bundle.site in shown),
            nonces,
            tuple(bytes(setups[member].header) for member in sorted(setups)),
        ).encode()
        trees = {member: tree for member, (_, tree) in checked.items()}
        return cls(federation, place, common, setups, trees, threads)

    @property
    def epoch(self) -> int:
        """The epoch's number."""
        return self.place.epoch

    @property
    def view(self) -> bytes:
        """What the epoch's committee is known by."""
        return self._view.digest

    @property
    def transcript(self) -> Transcript:
        """The fixed setup."""
        return self._view.transcript

    @property
    def members(self) -> tuple[int, ...]:
        """Roster indices of the committee members that finished the setup."""
        return self._view.members

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Sites of the epoch, in order of name."""
        return tuple(self.federation.roster[i].name for i in self.transcript.sites)

    @cached_property
    def member_names(self) -> tuple[str, ...]:
        """Committee members, in order of name."""
        return tuple(self.federation.roster[i].name for i in self.members)

    @property
    def recoverable(self) -> int:
        """How many members may still be lost in a round: d less those that did not finish the setup."""
        policy = self.federation.policy
        return policy.recoverable_drops - (policy.committee_size - len(self.members))

    @property
    def confirmed(self) -> bool:
        """Whether sites will accept the committee: it is complete, or L - d members have signed it."""
        policy = self.federation.policy
        return len(self.members) == policy.committee_size or len(self._confirmations) >= policy.threshold

    def confirm_requests(self) -> dict[str, bytes]:
        """Return what to send to the members before the first round; empty when every drawn member is there."""
        if self.confirmed:
            return {}
        place = self.place
        request = ConfirmRequest(place.federation, place.run, place.epoch, self._common).encode()
        return dict.fromkeys(self.member_names, request)

    def add_confirmation(self, member: str, reply: bytes) -> None:
        """Verify a member's signature under the committee."""
        signer = confirmer(self.federation, self.place, self._view, reply)
        if self.federation.roster[signer].name != member:
            raise SecAggRefused(Reason.WRONG_SITE, f"expected a confirmation of member={member}, got another's")
        self._confirmations[signer] = bytes(reply)

    def install(self, site: str) -> bytes:
        """Return a site's sealed keys with all that it needs to check them."""
        at = self.names.index(site)
        setups = [self._setups[member] for member in self.members]
        return Install(
            self._common,
            tuple(setup.sealed[at] for setup in setups),
            tuple(merkle.prove(self._trees[member], at) for member in self.members),
            tuple(setup.rows[at] for setup in setups),
            tuple(self._confirmations.values()),
        ).encode()

    def deposit(self, member: int, round_: int) -> bytes:
        """Return a member's deposit of a round."""
        return self._setups[member].deposits[round_]

    def share_digest(self, dealer: int, holder: int, round_: int) -> bytes:
        """Return what `dealer` committed to for the share that it gave to `holder`."""
        row = self._setups[dealer].rows[self.transcript.sites.index(holder)]
        return row[32 * round_ : 32 * (round_ + 1)]

    def to_bytes(self) -> bytes:
        """Return all of the epoch, to be kept by the aggregator across a restart."""
        index = self.federation.index
        return EpochState(
            self.place.federation,
            self.place.run,
            self.place.epoch,
            self._common,
            tuple(self._setups[member].encode() for member in self.members),
            tuple(self._confirmations.values()),
            tuple(sorted(index[name] for name in self.installed)),
        ).encode()

    @classmethod
    def from_bytes(cls, federation: Federation, run: str, data: bytes) -> Self:
        """Return an epoch from `to_bytes`, all of it verified again."""
        state = EpochState.decode(data)
        place = Place(federation.digest, run, state.epoch)
        place.check(state.federation, state.run, state.epoch)
        replies = [SetupReply.decode(setup) for setup in state.setups]
        setups = {federation.index[federation.site(site_of(reply.header)).name]: reply for reply in replies}
        common = Common.decode(state.common)
        epoch = cls(federation, place, bytes(state.common), _matching(common, setups))
        for confirmation in state.confirmations:
            epoch.add_confirmation(site_of(confirmation), confirmation)
        epoch.installed = {federation.roster[i].name for i in state.installed if i in epoch.transcript.sites}
        return epoch


def _matching(common: Common, setups: Mapping[int, SetupReply]) -> Mapping[int, SetupReply]:
    """Return the setups in the order of the headers that the sites were shown."""
    if [bytes(setup.header) for _, setup in sorted(setups.items())] != list(common.headers):
        raise SecAggRefused(Reason.BAD_TRANSCRIPT, "the setups kept are not those that the sites were shown")
    return setups
