"""Federations of more than 32 sites: the committee is drawn by the transcript, and nobody can choose it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from secagg_lab import RUN, Lab, expected, identity, make_federation, names, reason_of

from qfed.errors import QuorumLost
from qfed.secagg import Federation, Policy, Reason
from qfed.secagg.messages import (
    Common,
    HelloBody,
    HelloRequest,
    Install,
    Reply,
    RevealBody,
    RevealRequest,
    SetupBody,
    SetupRequest,
    UploadRequest,
)
from qfed.secagg.primitives import KemKey, digest
from qfed.secagg.statement import NOTHING, Place, StoreMark, sign_reply
from qfed.secagg.transcript import build_transcript, open_bundles, openers

COUNT = 40
MARK = StoreMark(bytes(32), 1)


def build() -> Lab:
    policy = Policy("drawn", committee_size=8, recoverable_drops=2, min_survivors=33, epoch_rounds=2)
    sites = [identity(name).public for name in names(COUNT)]
    return Lab.build(COUNT, Federation.create(policy, sites, identity("coordinator")))


def test_a_drawn_committee_serves_everyone_and_recovers_its_members() -> None:
    lab = build()
    epoch = lab.setup()
    assert len(epoch.members) == 8
    vectors = lab.vectors(64)
    got = lab.round(epoch, 0, vectors)
    assert np.array_equal(got.total, expected(vectors, vectors))
    plain = [name for name in epoch.names if name not in epoch.member_names]
    gone = [epoch.member_names[0], *plain[:3]]
    got = lab.round(epoch, 1, vectors, no_upload=gone, no_unmask=[*gone, epoch.member_names[5]])
    assert len(got.survivors) == COUNT - 4
    assert np.array_equal(got.total, expected(vectors, got.survivors))


def test_other_nonces_draw_another_committee() -> None:
    drawn = {build().setup().member_names for _ in range(2)}
    assert len(drawn) == 2


def test_only_the_openers_are_asked_and_all_of_them_must_open() -> None:
    lab = build()
    setup = lab.server.begin_epoch(1, names(COUNT))
    reveals = setup.reveal(lab.ask(setup.hello()))
    assert len(reveals) == 32
    missing = next(iter(reveals))
    with pytest.raises(QuorumLost, match=missing):
        setup.setup(lab.ask(reveals, [missing]))
    # The next epoch goes on without it.
    assert missing not in lab.setup(2, no_hello=[missing]).names


def test_sites_that_are_no_openers_may_vanish_and_stay_candidates() -> None:
    lab = build()
    setup = lab.server.begin_epoch(1, names(COUNT))
    reveals = setup.reveal(lab.ask(setup.hello()))
    deals = setup.setup(lab.ask(reveals))
    assert len(deals) == 8
    away = list(deals)[:2]
    epoch = setup.finish(lab.ask(deals, away))
    assert len(epoch.members) == 6
    assert epoch.recoverable == 0
    for member, reply in lab.ask(epoch.confirm_requests()).items():
        epoch.add_confirmation(member, reply)
    vectors = lab.vectors(16)
    assert np.array_equal(lab.round(epoch, 0, vectors).total, expected(vectors, vectors))
    with pytest.raises(QuorumLost, match="begin the next epoch"):
        lab.round(epoch, 1, vectors, no_unmask=epoch.member_names[:1])


def test_too_small_a_committee_is_no_epoch() -> None:
    lab = build()
    setup = lab.server.begin_epoch(1, names(COUNT))
    deals = setup.setup(lab.ask(setup.reveal(lab.ask(setup.hello()))))
    with pytest.raises(QuorumLost, match="committee-too-small"):
        setup.finish(lab.ask(deals, list(deals)[:3]))


def test_a_server_that_leaves_out_a_nonce_or_a_bundle_is_refused() -> None:
    lab = build()
    setup = lab.server.begin_epoch(1, names(COUNT))
    hellos = lab.ask(setup.hello())
    reveals = setup.reveal(hellos)
    deals = setup.setup(lab.ask(reveals))
    member = next(site for site in deals if site in reveals)
    request = SetupRequest.decode(deals[member])
    handle = lab.sites[member].handle
    fewer = replace(request, nonces=request.nonces[1:])
    assert reason_of(lambda: handle(fewer.encode())) is Reason.NONCE_MISSING
    without = RevealRequest(lab.federation.digest, RUN, 1, request.bundles[:-1])
    assert reason_of(lambda: handle(without.encode())) in (Reason.SPLIT_TRANSCRIPT, Reason.BAD_TRANSCRIPT)
    outsider = next(site for site in names(COUNT) if site not in deals)
    assert reason_of(lambda: lab.sites[outsider].handle(deals[member])) is Reason.NOT_A_MEMBER


def test_nonces_opened_for_one_set_draw_no_committee_from_another() -> None:
    """With all nonces known the server could try sets of bundles offline (a corrupt site signs as many hellos as it
    likes) until the committee suits; a site that has opened its nonce takes part in that set only, opener or not."""
    lab, everyone = build(), names(COUNT)
    place = Place(lab.federation.digest, RUN, 1)
    bundles = lab.ask({site: HelloRequest(place.federation, RUN, 1, b"").encode() for site in everyone})
    request = RevealRequest(place.federation, RUN, 1, tuple(bundles.values())).encode()
    replies = lab.ask(dict.fromkeys(everyone, request))
    nonces = {site: RevealBody.decode(Reply.decode(reply).body).nonce for site, reply in replies.items()}
    nonces[everyone[-1]] = bytes(32)
    refused = set()
    while len(refused) < 3:
        hello = HelloBody(KemKey.generate().public(), digest("nonce", bytes(32))).encode()
        bundles[everyone[-1]] = sign_reply(identity(everyone[-1]), place, HelloRequest.KIND, NOTHING, MARK, hello)
        opened = open_bundles(lab.federation, place, tuple(bundles.values()))
        digests, indices = [bundle.digest for bundle in opened], range(COUNT)
        who = openers(lab.federation, indices, digests)
        chosen = tuple(nonces[everyone[site]] for site in who)
        commitments = {bundle.site: bundle.commitment for bundle in opened}
        drawn = build_transcript(lab.federation, place, indices, digests, commitments, chosen).drawn
        for member in set(drawn) - set(who) - {COUNT - 1}:
            asked = SetupRequest(place.federation, RUN, 1, tuple(bundles.values()), chosen).encode()
            assert reason_of(lambda m=member, a=asked: lab.sites[everyone[m]].handle(a)) is Reason.SPLIT_TRANSCRIPT
            refused.add(member)


def test_a_plain_site_checks_the_committee_that_it_is_shown() -> None:
    lab = build()
    epoch = lab.setup()
    plain = next(site for site in epoch.names if site not in epoch.member_names)
    request = UploadRequest.decode(lab.server.begin_round(epoch, 0, 4).upload_requests()[plain])
    install = Install.decode(request.install)
    common = Common.decode(install.common)

    def refusal(**changes: object) -> Reason | None:
        changed = replace(install, common=replace(common, **changes).encode()).encode()
        return reason_of(lambda: lab.sites[plain].round_of(replace(request, install=changed).encode()))

    assert len(common.bundles) == len(openers(lab.federation, common.sites, common.digests)) == 32
    assert refusal(bundles=common.bundles[1:]) is Reason.BAD_TRANSCRIPT
    at = common.sites.index(lab.federation.index[plain])
    without = {
        "sites": common.sites[:at] + common.sites[at + 1 :],
        "digests": common.digests[:at] + common.digests[at + 1 :],
    }
    assert refusal(**without) is not None
    swapped = (*common.digests[:at], bytes(32), *common.digests[at + 1 :])
    assert refusal(digests=swapped) is not None
    assert refusal() is None


def test_a_committee_that_was_not_drawn_is_refused() -> None:
    """A site outside the draw, whose key the server owns, cannot sit on the committee."""
    lab = build()
    epoch = lab.setup()
    plain = next(site for site in epoch.names if site not in epoch.member_names)
    request = UploadRequest.decode(lab.server.begin_round(epoch, 0, 4).upload_requests()[plain])
    install = Install.decode(request.install)
    common = Common.decode(install.common)
    body = SetupBody(bytes(32), bytes(32)).encode()
    header = sign_reply(identity(plain), epoch.place, SetupRequest.KIND, epoch.transcript.digest, MARK, body)
    changed = replace(install, common=replace(common, headers=(*common.headers[1:], header)).encode()).encode()
    with_it = replace(request, install=changed).encode()
    assert reason_of(lambda: lab.sites[plain].round_of(with_it)) is Reason.NOT_A_MEMBER


def test_the_recommended_policy_of_a_hundred_sites_is_a_federation() -> None:
    federation = make_federation(100)
    assert federation.policy.committee_size < 100
