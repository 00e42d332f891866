"""The aggregator's own order of steps, and its memory: one vector a round, however many sites."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from secagg_lab import RUN, Lab, expected, identity, names

from qfed.errors import QuorumLost
from qfed.secagg import Reason, SecAggMisuse, SecAggRefused, ServerEpoch, ServerSession, shamir
from qfed.secagg.messages import EpochState, HelloRequest, Reply, RevealBody, RevealRequest, Statement
from qfed.secagg.statement import Place, StoreMark, sign_reply
from qfed.secagg.wire import check_name


def misuse(call: object) -> Reason:
    with pytest.raises(SecAggMisuse) as refusal:
        call()  # type: ignore[operator]
    return refusal.value.reason


def test_the_memory_of_a_round_does_not_grow_with_its_sites() -> None:
    size = 200_000
    lab = Lab.build(10)
    epoch = lab.setup()
    vectors = lab.vectors(size)
    step = lab.server.begin_round(epoch, 0, size)
    replies = {site: lab.sites[site].upload(request, vectors[site]) for site, request in step.upload_requests().items()}
    tracemalloc.start()
    held = []
    for site in names(10):
        step.add_upload(site, replies.pop(site))
        held.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert max(held) - held[0] < size * 4 / 10
    assert step._total.nbytes == size * 4


@pytest.mark.parametrize("threads", [1, 2])
def test_a_vector_that_was_not_signed_leaves_the_sum_as_it_was(threads: int) -> None:
    """On two cores a vector is added while it is hashed; one that turns out to be another's is taken off again."""
    size = 300_000
    lab = Lab.build(5)
    lab.server = ServerSession(lab.federation, RUN, threads=threads)
    epoch = lab.setup()
    vectors = lab.vectors(size)
    step = lab.server.begin_round(epoch, 0, size)
    for site, request in step.upload_requests().items():
        reply = lab.sites[site].upload(request, vectors[site])
        before = step._total.copy()
        for damaged in (reply[:-1] + bytes([reply[-1] ^ 1]), reply[:3000] + bytes([reply[3000] ^ 1]) + reply[3001:]):
            with pytest.raises(SecAggRefused) as refusal:
                step.add_upload(site, damaged)
            assert refusal.value.reason in (Reason.BODY_TAMPERED, Reason.SIGNATURE_BAD)
            assert np.array_equal(step._total, before)
            assert site not in step.survivors
        step.add_upload(site, reply)
    for member, request in step.unmask_requests().items():
        step.add_unmask(member, lab.sites[member].handle(request))
    assert not step.recovery_requests()
    assert np.array_equal(step.result().total, expected(vectors, lab.sites))


def test_requests_are_made_when_they_are_looked_up() -> None:
    lab = Lab.build(5)
    step = lab.server.begin_round(lab.setup(), 0, 4)
    requests = step.upload_requests()
    assert len(requests) == 5
    assert list(requests) == names(5)
    assert "nobody" not in requests
    assert requests[names(5)[0]] is not requests[names(5)[0]]


def test_a_setup_goes_in_order_and_among_the_roster() -> None:
    lab = Lab.build(5)
    assert misuse(lambda: lab.server.begin_epoch(1, [*names(4), "stranger"])) is Reason.NOT_IN_ROSTER
    with pytest.raises(QuorumLost, match="sites-too-few"):
        lab.server.begin_epoch(1, names(3))
    setup = lab.server.begin_epoch(1, names(5))
    assert misuse(lambda: setup.reveal({})) is Reason.OUT_OF_ORDER
    hellos = lab.ask(setup.hello())
    assert misuse(setup.hello) is Reason.OUT_OF_ORDER
    reveals = lab.ask(setup.reveal(hellos))
    with pytest.raises(QuorumLost, match="opened their nonces"):
        setup.setup(dict(list(reveals.items())[:2]))
    assert misuse(lambda: setup.finish({})) is Reason.OUT_OF_ORDER


def test_a_site_with_a_bad_bundle_or_nonce_is_left_out_with_its_reason() -> None:
    lab = Lab.build(10)
    setup = lab.server.begin_epoch(1, names(10))
    hellos = lab.ask(setup.hello())
    hellos[names(10)[0]] = hellos[names(10)[1]]
    reveals = setup.reveal(hellos)
    assert names(10)[0] not in reveals
    assert setup.refused[names(10)[0]].reason is Reason.WRONG_SITE
    replies = lab.ask(reveals)
    liar = names(10)[3]
    about = Statement.decode(Reply.decode(replies[liar]).statement).about
    place = Place(lab.federation.digest, RUN, 1)
    replies[liar] = sign_reply(
        identity(liar), place, RevealRequest.KIND, about, StoreMark(bytes(32), 9), RevealBody(bytes(32)).encode()
    )
    deals = setup.setup(replies)
    assert setup.refused[liar].reason is Reason.BAD_NONCE
    assert liar not in deals
    epoch = setup.finish(lab.ask(deals))
    assert epoch.names == tuple(n for n in names(10) if n not in (names(10)[0], liar))


def test_a_cohort_is_chosen_among_the_sites_of_the_epoch() -> None:
    lab = Lab.build(5)
    epoch = lab.setup()
    assert misuse(lambda: lab.server.begin_round(epoch, 0, 4, ["stranger", *names(5)])) is Reason.NOT_IN_ROSTER
    with pytest.raises(QuorumLost, match="cohort=3"):
        lab.server.begin_round(epoch, 0, 4, names(3))


def test_members_that_did_not_upload_are_asked_when_too_many_to_give_up() -> None:
    """Three of ten uploads are lost but m = 7 here, and d = 2 cannot spare three members: all are asked."""
    lab = Lab.build(10, min_survivors=7)
    epoch = lab.setup()
    vectors = lab.vectors(8)
    lab.round(epoch, 0, vectors)  # everyone has keys
    away = names(10)[:3]
    got = lab.round(epoch, 1, vectors, no_upload=away)
    assert got.survivors == tuple(names(10)[3:])
    assert np.array_equal(got.total, expected(vectors, got.survivors))


def test_a_kept_epoch_that_was_altered_is_refused() -> None:
    lab = Lab.build(5)
    epoch = lab.setup()
    state = EpochState.decode(epoch.to_bytes())
    from qfed.secagg import SecAggRefused

    for change, reason in (
        ({"setups": state.setups[1:]}, Reason.BAD_TRANSCRIPT),
        ({"epoch": 2}, Reason.WRONG_EPOCH),
        ({"run": "other"}, Reason.WRONG_RUN),
    ):
        with pytest.raises(SecAggRefused) as refusal:
            ServerEpoch.from_bytes(lab.federation, RUN, replace(state, **change).encode())  # type: ignore[arg-type]
        assert refusal.value.reason is reason


def test_what_the_wire_does_not_carry_is_the_callers_mistake() -> None:
    assert misuse(lambda: check_name("a b", "run")) is Reason.FIELD_MALFORMED
    assert misuse(lambda: HelloRequest(b"short", RUN, 1, b"").encode()) is Reason.FIELD_MALFORMED
    assert HelloRequest(bytes(32), RUN, 1, bytearray(b"x")).encode()  # type: ignore[arg-type]


def test_shares_of_t_minus_one_members_say_nothing() -> None:
    """Any candidate secret fits t - 1 shares: with one share changed, the opened secret runs over all values."""
    secret = bytes(range(16))
    shares = shamir.split(secret, 3, 4)
    seen = {shamir.combine({0: shares[0], 1: shares[1], 2: bytes([k]) * 16}, 3) for k in range(64)}
    assert len(seen) == 64
