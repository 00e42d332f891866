"""Whole epochs in one process: masks cancel exactly, whoever vanishes as far as the policy lets them."""

from __future__ import annotations

import numpy as np
import pytest
from secagg_lab import Lab, expected, names

from qfed.errors import QuorumLost
from qfed.secagg import Reason, SecAggRefused


@pytest.mark.parametrize("count", [3, 5, 10])
@pytest.mark.parametrize("ring_bits", [16, 32])
def test_masks_cancel_exactly(count: int, ring_bits: int) -> None:
    lab = Lab.build(count, ring_bits=ring_bits, bits=8)
    epoch = lab.setup()
    for round_ in range(3):
        vectors = lab.vectors(1001, seed=round_)
        got = lab.round(epoch, round_, vectors)
        assert got.survivors == tuple(names(count))
        assert np.array_equal(got.total, expected(vectors, vectors))


def test_vectors_longer_than_one_stretch_of_key_stream() -> None:
    lab = Lab.build(3)
    vectors = lab.vectors(50_001)
    got = lab.round(lab.setup(), 0, vectors)
    assert np.array_equal(got.total, expected(vectors, vectors))


def test_a_site_that_does_not_upload_is_left_out_and_its_masks_are_recovered() -> None:
    lab = Lab.build(10)
    away = names(10)[:2]
    vectors = lab.vectors(64)
    got = lab.round(lab.setup(), 0, vectors, no_upload=away, no_unmask=away)
    assert got.survivors == tuple(names(10)[2:])
    assert np.array_equal(got.total, expected(vectors, got.survivors))


def test_members_that_vanish_after_their_upload_are_recovered() -> None:
    lab = Lab.build(10)
    away = names(10)[3:5]
    vectors = lab.vectors(64)
    got = lab.round(lab.setup(), 0, vectors, no_unmask=away)
    assert got.survivors == tuple(names(10))
    assert np.array_equal(got.total, expected(vectors, vectors))


def test_one_vanishes_before_and_one_after_the_upload() -> None:
    lab = Lab.build(10)
    vectors = lab.vectors(64)
    got = lab.round(lab.setup(), 0, vectors, no_upload=names(10)[:1], no_unmask=[names(10)[0], names(10)[9]])
    assert np.array_equal(got.total, expected(vectors, names(10)[1:]))


def test_sites_absent_at_any_step_of_the_setup_count_as_recovered() -> None:
    for step in ("no_hello", "no_reveal", "no_setup"):
        lab = Lab.build(10)
        absent = names(10)[:2]
        epoch = lab.setup(**{step: absent})
        vectors = lab.vectors(16)
        got = lab.round(epoch, 0, vectors)
        assert np.array_equal(got.total, expected(vectors, got.survivors))
        assert (absent[0] in got.survivors) == (step == "no_setup")
        with pytest.raises(QuorumLost, match="begin the next epoch"):
            lab.round(epoch, 1, vectors, no_unmask=names(10)[5:6])


def test_a_site_comes_back_and_a_late_joiner_waits_for_the_next_epoch() -> None:
    lab = Lab.build(10)
    late = names(10)[0]
    vectors = lab.vectors(16)
    epoch = lab.setup(no_hello=[late])
    assert late not in epoch.names
    got = lab.round(epoch, 0, vectors, no_upload=names(10)[5:6], no_unmask=names(10)[5:6])
    assert names(10)[5] not in got.survivors
    assert names(10)[5] in lab.round(epoch, 1, vectors).survivors
    epoch = lab.setup(2)
    assert late in lab.round(epoch, 0, vectors).survivors


def test_too_few_uploads_lose_the_quorum() -> None:
    lab = Lab.build(5)
    with pytest.raises(QuorumLost, match="min_survivors=4"):
        lab.round(lab.setup(), 0, lab.vectors(8), no_upload=names(5)[:2])


def test_a_restarted_aggregator_goes_on_with_the_epoch() -> None:
    lab = Lab.build(5)
    vectors = lab.vectors(16)
    epoch = lab.setup()
    lab.round(epoch, 0, vectors)
    kept = lab.server.restore_epoch(epoch.to_bytes())
    assert kept.installed == set(names(5))
    got = lab.round(kept, 1, vectors, no_unmask=names(5)[:1])
    assert np.array_equal(got.total, expected(vectors, vectors))


def test_an_epoch_with_a_member_missing_survives_a_restart_with_its_confirmations() -> None:
    lab = Lab.build(10)
    epoch = lab.setup(no_setup=names(10)[:1])
    kept = lab.server.restore_epoch(epoch.to_bytes())
    assert kept.confirmed
    vectors = lab.vectors(16)
    assert np.array_equal(lab.round(kept, 0, vectors).total, expected(vectors, vectors))


def test_a_cohort_is_a_part_of_the_sites() -> None:
    lab = Lab.build(10)
    vectors = lab.vectors(16)
    cohort = names(10)[1:9]
    got = lab.round(lab.setup(), 0, vectors, cohort=cohort)
    assert got.survivors == tuple(cohort)
    assert np.array_equal(got.total, expected(vectors, cohort))


def test_redelivery_sends_the_same_bytes_and_does_not_look_at_the_vector() -> None:
    lab = Lab.build(5)
    epoch = lab.setup()
    step = lab.server.begin_round(epoch, 0, 16)
    request = step.upload_requests()[names(5)[0]]
    site = lab.sites[names(5)[0]]
    assert site.cached_upload(request) is None
    assert site.round_of(request) == (1, 0)
    first = site.upload(request, lab.vectors(16)[names(5)[0]])
    assert site.upload(request, np.zeros(3, np.float64)) == first
    assert site.cached_upload(request) == first


def test_a_late_upload_is_refused() -> None:
    lab = Lab.build(10)
    epoch = lab.setup()
    vectors = lab.vectors(16)
    step = lab.server.begin_round(epoch, 0, 16)
    requests = step.upload_requests()
    replies = {site: lab.sites[site].upload(requests[site], vectors[site]) for site in requests}
    for site in names(10)[1:]:
        step.add_upload(site, replies[site])
    step.unmask_requests()
    with pytest.raises(SecAggRefused) as refusal:
        step.add_upload(names(10)[0], replies[names(10)[0]])
    assert refusal.value.reason is Reason.LATE_UPLOAD
