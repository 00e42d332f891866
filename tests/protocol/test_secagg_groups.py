"""Groups summed one by one, played against an aggregator that would like to choose who is with whom."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from secagg_lab import RUN, expected, identity, make_federation, names, reason_of

from qfed.errors import QuorumLost
from qfed.secagg import (
    ClientSession,
    ClientStore,
    EpochSetup,
    Federation,
    Group,
    GroupedSession,
    Policy,
    Reason,
    SecAggMisuse,
    ServerEpoch,
    ServerSession,
    client_session,
)
from qfed.secagg.groups import recall, remember
from qfed.secagg.messages import HelloBody, HelloRequest, RevealRequest, SetupRequest, UnmaskRequest, UploadRequest
from qfed.secagg.primitives import KemKey, digest
from qfed.secagg.statement import NOTHING, Place, StoreMark, sign_reply

SIZE = 32


class Lab:
    """A federation with groups: real sites, a real aggregator, the test as the network."""

    def __init__(self, count: int = 12, groups: int = 4, **terms: Any) -> None:
        size = count // groups
        self.federation = make_federation(
            count, **{"groups": groups, "committee_size": size, "recoverable_drops": size // 5, "min_survivors": 3}
            | terms
        )  # fmt: skip
        self.server = ServerSession(self.federation, RUN)
        self.stores = {site.name: ClientStore(":memory:") for site in self.federation.roster}
        self.sites = {
            name: client_session(identity(name), self.federation, store, RUN) for name, store in self.stores.items()
        }
        self.names = list(self.sites)

    def ask(self, requests: dict[str, bytes], away: tuple[str, ...] = ()) -> dict[str, bytes]:
        return {site: self.sites[site].handle(request) for site, request in requests.items() if site not in away}

    def revealed(self, epoch: int = 1, away: tuple[str, ...] = ()) -> tuple[EpochSetup, dict[str, bytes]]:
        """A setup whose nonces are open, and the replies that opened them."""
        setup = self.server.begin_epoch(epoch, [name for name in self.names if name not in away])
        return setup, self.ask(setup.reveal(self.ask(setup.hello())))

    def setup(self, epoch: int = 1, away: tuple[str, ...] = ()) -> list[ServerEpoch]:
        setup, replies = self.revealed(epoch, away)
        hellos = self.ask(setup.draw(replies))
        epochs = []
        for part in setup.group_setups():
            opened = self.ask(part.reveal({site: hellos[site] for site in part.sites}))
            epochs.append(part.finish(self.ask(part.setup(opened))))
        return epochs

    def round(self, epoch: ServerEpoch, number: int, vectors: dict[str, np.ndarray]) -> np.ndarray:
        step = self.server.of_group(epoch.federation).begin_round(epoch, number, SIZE)
        for site, request in step.upload_requests().items():
            step.add_upload(site, self.sites[site].upload(request, vectors[site]))
        for site, reply in self.ask(dict(step.unmask_requests())).items():
            step.add_unmask(site, reply)
        assert not step.recovery_requests()
        return step.result().total

    def vectors(self, seed: int = 0) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(seed)
        return {name: rng.integers(0, 100, SIZE).astype(np.uint32) for name in self.names}


def group_of(epochs: list[ServerEpoch], site: str) -> ServerEpoch:
    return next(epoch for epoch in epochs if site in epoch.names)


def upload_request(lab: Lab, epoch: ServerEpoch, site: str, round_: int = 0) -> UploadRequest:
    step = lab.server.of_group(epoch.federation).begin_round(epoch, round_, SIZE)
    return UploadRequest.decode(step.upload_requests()[site])


def test_each_group_opens_to_its_own_sum() -> None:
    lab = Lab()
    epochs, vectors = lab.setup(), lab.vectors()
    assert sorted(name for epoch in epochs for name in epoch.names) == lab.names
    assert [len(epoch.names) for epoch in epochs] == [3, 3, 3, 3]
    for number in (0, 2):
        for epoch in epochs:
            assert np.array_equal(lab.round(epoch, number, vectors), expected(vectors, epoch.names))


def test_with_sites_away_there_are_fewer_groups_and_none_is_smaller() -> None:
    lab = Lab(13, 3)
    assert sorted(len(epoch.names) for epoch in lab.setup()) == [4, 4, 5]
    lab = Lab(13, 3)
    assert [len(epoch.names) for epoch in lab.setup(away=tuple(lab.names[:2]))] == [6, 5]


def test_a_draw_takes_four_fifths_of_the_roster() -> None:
    """Else the aggregator could leave honest sites out until its own fill the groups."""
    lab = Lab(12, 4)
    with pytest.raises(QuorumLost, match="at least 10 sites"):
        lab.setup(away=tuple(lab.names[:3]))
    bundles = [lab.sites[name].handle(HelloRequest(lab.federation.digest, RUN, 2, b"").encode()) for name in lab.names]
    request = RevealRequest(lab.federation.digest, RUN, 2, tuple(bundles[:9])).encode()
    assert reason_of(lambda: lab.sites[lab.names[0]].handle(request)) is Reason.SITES_TOO_FEW


def test_a_group_recovers_its_own_lost_member() -> None:
    lab = Lab(10, 2)
    epoch, vectors = lab.setup()[0], lab.vectors()
    session = lab.server.of_group(epoch.federation)
    step = session.begin_round(epoch, 0, SIZE)
    lost, *others = epoch.names
    for site, request in step.upload_requests().items():
        step.add_upload(site, lab.sites[site].upload(request, vectors[site]))
    for site, reply in lab.ask(dict(step.unmask_requests()), (lost,)).items():
        step.add_unmask(site, reply)
    for site, reply in lab.ask(dict(step.recovery_requests())).items():
        step.add_recovery(site, reply)
    assert len(others) == 4
    assert np.array_equal(step.result().total, expected(vectors, epoch.names))


def test_groups_are_drawn_anew_each_epoch_and_uniformly() -> None:
    """How often two sites meet over 60 draws of 3 groups of four: a pair meets with probability 3/11."""
    lab, met, draws = Lab(12, 3, min_survivors=4), np.zeros((12, 12)), 60
    for epoch in range(1, draws + 1):
        setup, replies = lab.revealed(epoch)
        setup.draw(replies)
        for group in setup.groups:
            at = [lab.federation.index[site.name] for site in group.roster]
            met[np.ix_(at, at)] += 1
    share = met[np.triu_indices(12, 1)] / draws
    assert share.mean() == pytest.approx(3 / 11)
    assert share.max() < 3 / 11 + 5 * math.sqrt(3 / 11 * 8 / 11 / draws)
    assert share.min() > 0


def test_the_site_is_in_the_group_that_it_computes() -> None:
    lab = Lab()
    setup, replies = lab.revealed()
    lab.ask(setup.draw(replies))
    for group in setup.groups:
        assert recall(lab.federation, remember(lab.federation, group)) == group
    assert len({group.digest for group in setup.groups} | {lab.federation.digest}) == 5


def place(group: Federation, epoch: int = 1) -> Place:
    return Place(group.digest, RUN, epoch)


def made_up(lab: Lab, group: Group, members: list[str]) -> Group:
    """A group as the aggregator would like it: the victim among sites of its choice."""
    roster = tuple(identity(name).public for name in sorted(members))
    return replace(group, roster=roster)


def test_a_group_that_the_aggregator_made_up_is_refused() -> None:
    lab = Lab()
    epochs = lab.setup()
    victim, mine = lab.names[0], group_of(epochs, lab.names[0])
    other = next(epoch for epoch in epochs if epoch is not mine)
    chosen = made_up(lab, mine.federation, [victim, *other.names[:2]])  # type: ignore[arg-type]
    for group in (chosen, other.federation):
        hello = HelloRequest(group.digest, RUN, 1, b"").encode()
        assert reason_of(lambda h=hello: lab.sites[victim].handle(h)) is Reason.WRONG_FEDERATION
    request = upload_request(lab, mine, victim)
    for wrong in (replace(request, federation=chosen.digest), replace(request, federation=lab.federation.digest)):
        assert reason_of(lambda w=wrong: lab.sites[victim].round_of(w.encode())) is Reason.WRONG_FEDERATION
    assert lab.sites[victim].round_of(request.encode()) == (1, 0)


def test_no_sum_over_all_sites_beside_the_groups_and_no_groups_against_the_policy() -> None:
    lab = Lab()
    epoch = lab.setup()[0]
    site = epoch.names[0]
    whole = UnmaskRequest(lab.federation.digest, RUN, 1, 0, epoch.view, SIZE, (0, 1, 2), (), b"", b"")
    assert reason_of(lambda: lab.sites[site].handle(whole.encode())) is Reason.WRONG_KIND
    plain = make_federation(12)
    session = client_session(identity(site), plain, ClientStore(":memory:"), RUN)
    assert type(session) is ClientSession
    for digest_ in (epoch.federation.digest, lab.federation.digest):
        asked = HelloRequest(digest_, RUN, 1, b"").encode()
        assert reason_of(lambda a=asked: session.handle(a)) is Reason.WRONG_FEDERATION
    assert type(lab.sites[site]) is GroupedSession
    unknown = HelloBody(bytes(8), bytes(32)).encode()
    assert reason_of(lambda: lab.sites[site].handle(unknown)) is Reason.WRONG_KIND


def test_who_may_see_the_nonces_may_not_choose_the_sites() -> None:
    """Leaving one site out after all nonces are open would be another draw, as often as there are subsets."""
    lab = Lab()
    setup, replies = lab.revealed()
    request = SetupRequest.decode(setup.draw(replies)[lab.names[0]])
    fewer = replace(request, bundles=request.bundles[:-1], nonces=request.nonces[:-1])
    swapped = replace(request, bundles=(*request.bundles[:-1], forged(lab, lab.names[-1])))
    for bad, why in (
        (fewer, Reason.SPLIT_TRANSCRIPT),
        (swapped, Reason.SPLIT_TRANSCRIPT),
        (replace(request, nonces=request.nonces[:-1]), Reason.NONCE_MISSING),
        (replace(request, nonces=(*request.nonces[:-1], bytes(32))), Reason.BAD_NONCE),
        (replace(request, bundles=request.bundles[1:], nonces=request.nonces[1:]), Reason.BAD_TRANSCRIPT),
    ):
        assert reason_of(lambda b=bad: lab.sites[lab.names[0]].handle(b.encode())) is why
    assert reason_of(lambda: lab.sites[lab.names[0]].handle(request.encode())) is None


def forged(lab: Lab, name: str) -> bytes:
    """A second hello of a corrupt site."""
    body = HelloBody(KemKey.generate().public(), digest("nonce", bytes(32))).encode()
    return sign_reply(identity(name), place(lab.federation), HelloRequest.KIND, NOTHING, StoreMark(bytes(32), 1), body)


def test_groups_are_not_drawn_before_the_nonces_are_open() -> None:
    lab = Lab()
    setup = lab.server.begin_epoch(1, lab.names)
    bundles = tuple(lab.ask(setup.hello()).values())
    early = SetupRequest(lab.federation.digest, RUN, 1, bundles, tuple(bytes(32) for _ in bundles)).encode()
    assert reason_of(lambda: lab.sites[lab.names[0]].handle(early)) is Reason.SPLIT_TRANSCRIPT
    too_few = RevealRequest(lab.federation.digest, RUN, 1, bundles[:2]).encode()
    assert reason_of(lambda: lab.sites[lab.names[0]].handle(too_few)) is Reason.SITES_TOO_FEW


def test_a_nonce_that_stays_closed_ends_the_setup() -> None:
    lab = Lab()
    setup = lab.server.begin_epoch(1, lab.names)
    opened = lab.ask(setup.reveal(lab.ask(setup.hello())), (lab.names[3],))
    with pytest.raises(QuorumLost, match=f"{lab.names[3]} did not"):
        setup.draw(opened)
    assert len(lab.setup(2, away=(lab.names[3],))) == 3


def test_drawing_groups_until_they_suit_is_refused() -> None:
    """A draw that is not used counts, however often; one that is used starts the count again."""
    lab = Lab(6, 2)
    for epoch in range(1, 64):
        asked = HelloRequest(lab.federation.digest, RUN, epoch, b"").encode()
        lab.sites[lab.names[0]].handle(asked)
    setup, replies = lab.revealed(64)
    lab.ask(setup.draw(replies))
    last = HelloRequest(lab.federation.digest, RUN, 65, b"").encode()
    assert reason_of(lambda: lab.sites[lab.names[0]].handle(last)) is Reason.TOO_MANY_ATTEMPTS


def test_a_group_that_is_used_finishes_the_draw_and_forgets_the_keys_before() -> None:
    lab = Lab(6, 2)
    first = lab.setup(1)
    vectors = lab.vectors()
    for epoch in first:
        lab.round(epoch, 0, vectors)
    site = lab.names[0]
    old = upload_request(lab, group_of(first, site), site, 1)
    assert reason_of(lambda: lab.sites[site].round_of(old.encode())) is None
    lab.setup(2)  # drawn, not used
    for epoch in lab.setup(3):
        lab.round(epoch, 0, vectors)
    assert reason_of(lambda: lab.sites[site].round_of(old.encode())) is Reason.WRONG_FEDERATION
    rows = (
        lab.stores[site]
        ._database.execute(
            "SELECT epoch, length(kem) + length(nonce) + length(dealt) + length(installed) + length(setup) FROM epochs "
            "WHERE federation != ? AND length(kem) + length(nonce) + length(dealt) + length(installed) > 0",
            (lab.federation.digest,),
        )
        .fetchall()
    )
    assert [row[0] for row in rows] == [3], "keys of the latest group only"
    assert reason_of(lambda: lab.sites[site].handle(HelloRequest(lab.federation.digest, RUN, 3, b"").encode())) is (
        Reason.STALE_EPOCH
    )
    labels = lab.stores[site]._database.execute("SELECT DISTINCT federation FROM labels").fetchall()
    assert (lab.federation.digest,) not in labels, "nothing is ever masked for all sites together"
    assert len(labels) == 2


def test_a_site_that_starts_again_knows_its_group() -> None:
    lab = Lab(6, 2)
    epochs, vectors = lab.setup(), lab.vectors()
    for name in lab.names:
        lab.sites[name] = client_session(identity(name), lab.federation, lab.stores[name], RUN)
    for epoch in epochs:
        assert np.array_equal(lab.round(epoch, 0, vectors), expected(vectors, epoch.names))
    site = lab.names[0]
    request = upload_request(lab, group_of(epochs, site), site).encode()
    cached = lab.sites[site].cached_upload(request)
    assert cached is not None
    assert lab.sites[site].upload(request, np.zeros(SIZE, np.uint32)) == cached


@pytest.mark.parametrize(
    ("sites", "terms"),
    [
        (12, {"groups": 4, "committee_size": 4}),
        (12, {"groups": 5, "committee_size": 2}),
        (12, {"groups": 4, "committee_size": 3, "min_survivors": 4}),
        (12, {"groups": 4, "committee_size": 3, "recoverable_drops": 1}),
        (70, {"groups": 2, "committee_size": 35}),
        (12, {"groups": 0}),
    ],
)
def test_groups_that_hide_too_little_are_no_policy(sites: int, terms: dict[str, int]) -> None:
    with pytest.raises(SecAggMisuse) as misuse:
        Policy.recommended("lab", sites, **{"recoverable_drops": 0, "min_survivors": 3} | terms)
    assert misuse.value.reason is Reason.POLICY_INVALID


def test_a_larger_federation_draws_from_every_nonce() -> None:
    lab = Lab(36, 6)
    setup = lab.server.begin_epoch(1, lab.names)
    asked = setup.reveal(lab.ask(setup.hello()))
    assert set(asked) == set(lab.names), "not 32 openers only"
    setup.draw(lab.ask(asked))
    assert [len(group.roster) for group in setup.groups] == [6] * 6
    assert names(36) == sorted(site.name for group in setup.groups for site in group.roster)
