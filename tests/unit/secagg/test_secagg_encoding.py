"""Encoding: exact within the stated bound, unbiased, and everything that does not fit is refused for its reason."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from qfed.secagg import Block, Layout, Policy, Reason, SecAggMisuse, SecAggRefused, decode, encode


def policy(**terms: object) -> Policy:
    return Policy.recommended("enc", 10, **terms)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def encode_one(layout: Layout, p: Policy, **values: object) -> np.ndarray:
    return encode(layout, {k: np.atleast_1d(np.asarray(v, float)) for k, v in values.items()}, rng(), p, 10)


def refused(call: object) -> Reason:
    with pytest.raises((SecAggMisuse, SecAggRefused)) as refusal:
        call()  # type: ignore[operator]
    return refusal.value.reason


@settings(max_examples=100, deadline=None)
@given(
    values=hnp.arrays(np.float64, st.tuples(st.integers(1, 6), st.just(33)), elements=st.floats(-1, 1)),
    ring=st.sampled_from([(16, 8), (32, 16), (32, 24)]),
    seed=st.integers(0, 2**32),
    clip=st.sampled_from([1.0, 0.1, 3.7]),
)
def test_decode_of_the_sum_is_within_one_step_per_survivor(
    values: np.ndarray, ring: tuple[int, int], seed: int, clip: float
) -> None:
    p = policy(ring_bits=ring[0], bits=ring[1], clip=clip)
    layout = Layout.of_update(p, values.shape[1])
    generator = np.random.default_rng(seed)
    values = values * clip
    total = np.zeros(layout.size, p.dtype)
    for x in values:
        total += encode(layout, {"update": x, "weight": np.ones(1)}, generator, p, 10)
    sums = decode(layout, total, len(values))
    step = clip / (2 ** (ring[1] - 1) - 1)
    assert np.abs(sums["update"] - values.sum(axis=0)).max() <= len(values) * step
    assert sums["weight"] == [len(values)]


def test_rounding_is_unbiased() -> None:
    p = policy(bits=4, ring_bits=32)
    layout = Layout((Block("x", 200_000, 1.0, 7.0),))
    got = decode(layout, encode(layout, {"x": np.full(200_000, 0.3)}, rng(), p, 10), 1)["x"]
    # x * scale = 2.1, so one in ten is 3 and the others 2: standard deviation 0.3 steps
    assert abs(got.mean() * 7 - 2.1) < 5 * 0.3 / np.sqrt(200_000)
    assert set(np.unique(got * 7)) == {2.0, 3.0}


@given(weights=st.lists(st.integers(0, 1000), min_size=1, max_size=10))
def test_weights_and_counts_pass_exactly(weights: list[int]) -> None:
    p = policy(max_weight=1000, bits=16)
    layout = Layout.of_update(p, 0, (Block("correct", 1, 1000, 1.0),))
    total = np.zeros(layout.size, p.dtype)
    for weight in weights:
        total += encode_one(layout, p, update=np.zeros(0), weight=weight, correct=weight // 2)
    sums = decode(layout, total, len(weights))
    assert sums["weight"] == [sum(weights)]
    assert sums["correct"] == [sum(w // 2 for w in weights)]


def test_two_runs_of_one_seed_are_equal() -> None:
    p = policy()
    layout = Layout.of_update(p, 1000)
    x = rng().uniform(-1, 1, 1000)
    assert np.array_equal(encode_one(layout, p, update=x, weight=1), encode_one(layout, p, update=x, weight=1))


def test_float32_and_noncontiguous_updates_are_taken() -> None:
    p = policy()
    layout = Layout((Block("x", 5, 1.0, 1.0),))
    x = np.arange(10, dtype=np.float32)[::2] / 10
    assert encode(layout, {"x": x}, rng(), p, 10).shape == (5,)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (np.nan, Reason.NOT_FINITE),
        (np.inf, Reason.NOT_FINITE),
        (-np.inf, Reason.NOT_FINITE),
        (1.0001, Reason.OUT_OF_RANGE),
        (-1.0001, Reason.OUT_OF_RANGE),
        (1e300, Reason.OUT_OF_RANGE),
    ],
)
def test_values_that_do_not_fit_are_refused_wherever_they_stand(bad: float, reason: Reason) -> None:
    p = policy()
    layout = Layout.of_update(p, 100_000)
    for at in (0, 99_999):
        x = np.zeros(100_000)
        x[at] = bad
        with pytest.raises(SecAggMisuse, match=f"index={at}") as refusal:
            encode(layout, {"update": x, "weight": np.ones(1)}, rng(), p, 10)
        assert refusal.value.reason is reason


@pytest.mark.parametrize(
    ("weight", "reason"), [(11, Reason.OVERWEIGHT), (-1, Reason.OVERWEIGHT), (np.nan, Reason.NOT_FINITE)]
)
def test_a_weight_beyond_the_policy_is_refused(weight: float, reason: Reason) -> None:
    p = policy(max_weight=10)
    layout = Layout.of_update(p, 1)
    assert refused(lambda: encode_one(layout, p, update=0, weight=weight)) is reason


def test_a_sum_that_could_wrap_is_refused() -> None:
    p = policy(ring_bits=16, bits=8)
    layout = Layout((Block("x", 1, 1.0, 4000.0),))
    assert refused(lambda: encode_one(layout, p, x=0)) is Reason.RING_OVERFLOW
    assert refused(lambda: policy(ring_bits=16, bits=16)) is Reason.RING_OVERFLOW
    assert refused(lambda: policy(max_weight=2**16)) is Reason.RING_OVERFLOW


def test_the_bound_itself_fits_and_never_wraps() -> None:
    p = policy(ring_bits=16, bits=12)  # 10 * 2^11 < 2^15
    layout = Layout.of_update(p, 1000)
    total = np.zeros(layout.size, p.dtype)
    for _ in range(10):
        total += encode_one(layout, p, update=np.full(1000, -1.0), weight=1)
    assert np.allclose(decode(layout, total, 10)["update"], -10)


def test_layouts_that_do_not_fit_are_refused() -> None:
    p = policy()
    layout = Layout.of_update(p, 3)
    one = {"update": np.zeros(3), "weight": np.ones(1)}
    mismatch = Reason.LAYOUT_MISMATCH
    assert refused(lambda: encode(layout, {"update": np.zeros(3)}, rng(), p, 10)) is mismatch
    assert refused(lambda: encode(layout, {**one, "update": np.zeros((3, 1))}, rng(), p, 10)) is mismatch
    assert refused(lambda: Layout((Block("x", 1, 1, 1), Block("x", 1, 1, 1)))) is mismatch
    for bad in ({"size": -1}, {"bound": np.inf}, {"bound": 0.0}, {"scale": np.nan}):
        assert refused(lambda b=bad: Block(**{"name": "x", "size": 1, "bound": 1.0, "scale": 1.0, **b})) is mismatch
    assert refused(lambda: decode(layout, np.zeros(3, np.uint32), 1)) is mismatch
    assert refused(lambda: decode(layout, np.zeros(4, np.int32), 1)) is mismatch
    assert layout.digest != Layout.of_update(p, 4).digest


def test_a_sum_that_no_honest_sites_make_is_refused() -> None:
    p = policy(max_weight=5)
    layout = Layout.of_update(p, 1)
    total = encode_one(layout, p, update=5.0, weight=5)
    assert decode(layout, total, 1)["weight"] == [5]
    total[1] = 6
    assert refused(lambda: decode(layout, total, 1)) is Reason.AGGREGATE_OUT_OF_RANGE
    total[1] = np.uint32(2**32 - 1)  # a negative weight
    assert refused(lambda: decode(layout, total, 1)) is Reason.AGGREGATE_OUT_OF_RANGE
