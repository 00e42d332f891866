"""What the aggregator sees: uniform, uncorrelated, and no part of it decodes to one site's update."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats
from secagg_lab import RUN, Lab, identity, names

from qfed.secagg import Layout, ServerEpoch, decode, encode
from qfed.secagg.messages import Reply, UnmaskBody, UnmaskRequest, UploadRequest
from qfed.secagg.wire import kind_of

SIZE = 4096


def masked_vectors(lab: Lab, epoch: ServerEpoch, round_: int, value: float = 0.25) -> tuple[dict, dict, np.ndarray]:
    """Run a round in which every site sends the same constant update; return uploads, sums of masks and total."""
    policy = lab.federation.policy
    layout = Layout.of_update(policy, SIZE)
    rng = np.random.default_rng(1)
    vectors = {
        site: encode(layout, {"update": np.full(SIZE, value), "weight": np.array([1.0])}, rng, policy, len(lab.sites))
        for site in lab.sites
    }
    lab.traffic.clear()
    got = lab.round(epoch, round_, vectors)
    uploads, sums = {}, {}
    for (site, _, request), (_, _, reply) in zip(lab.traffic[::2], lab.traffic[1::2], strict=True):
        body = Reply.decode(reply).body
        if kind_of(request) == UploadRequest.KIND:
            uploads[site] = np.frombuffer(body, policy.dtype)
        elif kind_of(request) == UnmaskRequest.KIND:
            sums[site] = np.frombuffer(UnmaskBody.decode(body).total, policy.dtype)
    return uploads, sums, got.total


@pytest.mark.parametrize("count", [5, 10])
def test_every_masked_vector_is_uniform_and_the_sum_is_right(count: int) -> None:
    lab = Lab.build(count, max_weight=1)
    uploads, sums, total = masked_vectors(lab, lab.setup(), 0)
    assert len(uploads) == len(sums) == count
    for vector in [*uploads.values(), *sums.values()]:
        counts = np.bincount(vector.view(np.uint8), minlength=256)
        assert stats.chisquare(counts).pvalue > 1e-7
    # The test would see a failure: unmasked, a constant update is as far from uniform as can be.
    plain = np.bincount(total.view(np.uint8), minlength=256)
    assert stats.chisquare(plain).pvalue < 1e-100
    layout = Layout.of_update(lab.federation.policy, SIZE)
    mean = decode(layout, total, count)["update"] / count
    assert abs(mean.mean() - 0.25) < 1e-4


def test_the_same_update_masked_under_two_labels_is_uncorrelated() -> None:
    lab = Lab.build(5)
    epoch = lab.setup()
    first, second = masked_vectors(lab, epoch, 0)[0], masked_vectors(lab, epoch, 1)[0]
    for site in lab.sites:
        a, b = first[site].astype(np.float64), second[site].astype(np.float64)
        assert abs(np.corrcoef(a, b)[0, 1]) * np.sqrt(SIZE) < 5.5
        difference = (first[site] - second[site]).view(np.uint8)
        assert stats.chisquare(np.bincount(difference, minlength=256)).pvalue > 1e-7
    for one, other in itertools.combinations(lab.sites, 2):
        assert abs(np.corrcoef(first[one].astype(float), first[other].astype(float))[0, 1]) * np.sqrt(SIZE) < 5.5


def test_no_part_of_the_view_decodes_to_one_sites_update() -> None:
    """Every combination with coefficients -1, 0, 1 of all that the aggregator received, but for the whole sum.

    A combination without mask would be small (the encoded constant); a masked one is uniform on 2^32, so one of the
    first 64 coordinates is large but with probability 2^-64 per combination.
    """
    lab = Lab.build(4)
    uploads, sums, total = masked_vectors(lab, lab.setup(), 0)
    parts = [v[:64] for v in [*uploads.values(), *sums.values()]]
    allowed = 0
    bound = 4 * 2**15 + 4
    for signs in itertools.product((-1, 0, 1), repeat=len(parts)):
        if not any(signs):
            continue
        mix = np.zeros(64, np.uint32)
        for sign, part in zip(signs, parts, strict=True):
            if sign:
                mix = mix + part if sign > 0 else mix - part
        if np.abs(mix.view(np.int32).astype(np.int64)).max() <= bound:
            allowed += 1
            assert np.array_equal(mix, total[:64]) or np.array_equal(-mix, total[:64])
    assert allowed == 2  # the whole sum and its negative


def test_the_aggregates_of_one_seed_are_equal_whatever_the_keys() -> None:
    totals = []
    for _ in range(2):
        lab = Lab.build(5)
        totals.append(masked_vectors(lab, lab.setup(), 0)[2])
    assert np.array_equal(*totals)


def test_nothing_in_the_clear_but_names_and_labels() -> None:
    """No secret of a site, and no plain vector, is a part of anything that went over the wire."""
    lab = Lab.build(5)
    policy = lab.federation.policy
    layout = Layout.of_update(policy, 64)
    rng = np.random.default_rng(3)
    values = {site: rng.uniform(-1, 1, 64) for site in lab.sites}
    vectors = {
        site: encode(layout, {"update": x, "weight": np.array([1.0])}, rng, policy, 5) for site, x in values.items()
    }
    lab.round(lab.setup(), 0, vectors)
    wire = b"".join(data for _, _, data in lab.traffic)
    for site, vector in vectors.items():
        assert vector.tobytes()[:32] not in wire
        assert identity(site).key.ed25519 not in wire
        assert identity(site).key.mldsa65 not in wire
    assert RUN.encode() in wire
    assert names(5)[0].encode() in wire
