"""Properties: masks cancel whenever enough survive, and no flipped byte of a reply or of the sealed keys passes."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from secagg_lab import Lab, expected, names, reason_of

from qfed.errors import QuorumLost
from qfed.secagg import ServerEpoch
from qfed.secagg.messages import Install, UploadRequest

RELAXED = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


@cache
def standing_lab() -> tuple[Lab, ServerEpoch, list[int]]:
    lab = Lab.build(10, epoch_rounds=26)
    return lab, lab.setup(), [0]


@RELAXED
@given(
    no_upload=st.sets(st.integers(0, 9), max_size=4),
    no_unmask=st.sets(st.integers(0, 9), max_size=4),
    size=st.integers(1, 50),
    seed=st.integers(0, 2**32),
)
def test_masks_cancel_whenever_enough_survive(no_upload: set[int], no_unmask: set[int], size: int, seed: int) -> None:
    if standing_lab()[2][0] == 26:
        standing_lab.cache_clear()
    lab, epoch, used = standing_lab()
    policy = lab.federation.policy
    round_ = used[0]
    used[0] += 1
    vectors = lab.vectors(size, seed)
    everyone = names(10)
    survive = len(everyone) - len(no_upload) >= policy.min_survivors
    # A member that did not upload is given up at once (if that is allowed), so it counts as lost as well.
    given_up = no_upload if len(no_upload) <= policy.recoverable_drops else set()
    recover = len(given_up | no_unmask) <= policy.recoverable_drops
    try:
        got = lab.round(
            epoch,
            round_,
            vectors,
            no_upload=[everyone[i] for i in no_upload],
            no_unmask=[everyone[i] for i in no_unmask],
        )
    except QuorumLost:
        assert not (survive and recover)
        return
    assert survive
    assert recover
    assert np.array_equal(got.total, expected(vectors, [s for i, s in enumerate(everyone) if i not in no_upload]))


@cache
def recorded_replies() -> tuple[Lab, ServerEpoch, dict[str, bytes]]:
    """One reply of each kind of the same site, with the steps of the aggregator that take them."""
    lab = Lab.build(5)
    setup = lab.server.begin_epoch(1, names(5))
    kept: dict[str, bytes] = {}

    def ask(name: str, requests: dict[str, bytes]) -> dict[str, bytes]:
        replies = lab.ask(requests)
        kept[name] = replies[names(5)[0]]
        return replies

    deals = setup.setup(ask("reveal", setup.reveal(ask("hello", setup.hello()))))
    epoch = setup.finish(ask("setup", deals))
    return lab, epoch, kept


@RELAXED
@given(
    kind=st.sampled_from(["hello", "reveal", "setup"]), where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7)
)
def test_any_flipped_bit_of_a_setup_reply_leaves_its_site_out(kind: str, where: float, bit: int) -> None:
    lab, _, kept = recorded_replies()
    site = names(5)[0]
    data = bytearray(kept[kind])
    data[int(where * len(data))] ^= 1 << bit
    setup = lab.server.begin_epoch(1, names(5))
    steps = {"hello": setup.reveal, "reveal": setup.setup, "setup": setup.finish}
    replies: dict[str, bytes] = {s: lab.sites[s].handle(r) for s, r in setup.hello().items()}
    for step, take in steps.items():
        if step == kind:
            replies[site] = bytes(data)
        requests = take(replies)
        if step == kind:
            assert site in setup.refused
            return
        replies = {s: lab.sites[s].handle(r) for s, r in requests.items()}  # type: ignore[union-attr]


@cache
def round_replies() -> tuple[Lab, ServerEpoch, bytes, bytes, bytes]:
    lab = Lab.build(5)
    epoch = lab.setup()
    vectors = lab.vectors(100)
    step = lab.server.begin_round(epoch, 0, 100)
    site = names(5)[0]
    uploads = {s: lab.sites[s].upload(r, vectors[s]) for s, r in step.upload_requests().items()}
    for s, reply in uploads.items():
        step.add_upload(s, reply)
    answers = lab.ask(step.unmask_requests())
    for s in names(5)[:4]:
        step.add_unmask(s, answers[s])
    shares = lab.ask(step.recovery_requests())
    return lab, epoch, uploads[site], answers[site], shares[site]


@RELAXED
@given(kind=st.integers(0, 2), where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_any_flipped_bit_of_a_rounds_reply_is_refused(kind: int, where: float, bit: int) -> None:
    lab, epoch, *replies = round_replies()
    site = names(5)[0]
    data = bytearray(replies[kind])
    data[int(where * len(data))] ^= 1 << bit
    step = lab.server.begin_round(epoch, 0, 100)
    others = {s: lab.sites[s].cached_upload(r) for s, r in step.upload_requests().items()}
    if kind == 0:
        assert reason_of(lambda: step.add_upload(site, bytes(data))) is not None
        assert step.survivors == ()
        return
    for s, reply in others.items():
        assert reply is not None
        step.add_upload(s, reply)
    step.unmask_requests()
    if kind == 1:
        assert reason_of(lambda: step.add_unmask(site, bytes(data))) is not None
        return
    step.add_unmask(site, replies[1])
    for s in names(5)[1:4]:
        step.add_unmask(s, lab.sites[s].handle(step.unmask_requests()[s]))
    step.recovery_requests()
    assert reason_of(lambda: step.add_recovery(site, bytes(data))) is not None


@RELAXED
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_any_flipped_bit_of_the_sealed_keys_is_refused(where: float, bit: int) -> None:
    lab, epoch, _ = recorded_replies()
    site = names(5)[0]
    step = lab.server.begin_round(epoch, 0, 4)
    request = UploadRequest.decode(step.upload_requests()[site])
    data = bytearray(request.install)
    assert Install.decode(bytes(data))
    data[int(where * len(data))] ^= 1 << bit
    assert reason_of(lambda: lab.sites[site].round_of(replace(request, install=bytes(data)).encode())) is not None
