"""Every parser against damaged and random bytes: it returns a message or raises RemoteProtocolError, nothing else.

Hypothesis draws a seed; each seed damages a hundred inputs (flips, cuts, insertions, splices of two messages,
lengths that lie), so that 10^5 inputs stay affordable. The fast test runs 2000 of them, the slow one all.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from secagg_lab import RUN, Lab, identity, names

from qfed.errors import RemoteProtocolError
from qfed.secagg import Federation, Reason, SecAggMisuse, SecAggRefused, ServerEpoch, messages
from qfed.secagg.statement import StoreMark, check_receipt, site_of
from qfed.secagg.wire import Message, kind_of

PARSERS: list[type[Message]] = [
    cls for cls in vars(messages).values() if isinstance(cls, type) and issubclass(cls, Message) and cls is not Message
]
PER_SEED = 100


@cache
def corpus() -> tuple[Lab, ServerEpoch, list[bytes]]:
    """Honest messages of every kind, and the lab that they came from."""
    lab = Lab.build(5)
    epoch = lab.setup()
    lab.round(epoch, 0, lab.vectors(8), no_unmask=names(5)[:1])
    seeds = [data for _, _, data in lab.traffic]
    seeds += [messages.UploadRequest.decode(d).install for d in seeds if kind_of(d) == 4][:1]  # type: ignore[misc]
    seeds += [messages.Install.decode(seeds[-1]).common, epoch.to_bytes()]  # type: ignore[list-item]
    seeds += [lab.server.receipt(names(5)[0])]
    return lab, epoch, [bytes(s) for s in seeds]


def damage(rng: random.Random, seeds: list[bytes]) -> bytes:
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(7):
            case 0 if data:
                data[at % len(data)] ^= 1 << rng.randrange(8)
            case 1:
                del data[at:]
            case 2:
                data[at:at] = rng.randbytes(rng.randint(1, 9))
            case 3:
                other = rng.choice(seeds)
                data[at:] = other[rng.randrange(len(other)) :]
            case 4:
                data[at : at + 4] = rng.choice([0, 1, 2**31, 2**32 - 1, len(data)]).to_bytes(4, "big")
            case 5:
                return rng.randbytes(rng.randint(0, 200))
            case _:
                data[5:6] = bytes([rng.choice([cls.KIND for cls in PARSERS])])
    return bytes(data)


def targets(lab: Lab, epoch: ServerEpoch) -> list[Callable[[bytes], object]]:
    """Everything that takes bytes from the other side."""
    site = lab.sites[names(5)[0]]
    step = lab.server.begin_round(epoch, 2, 8)
    step.upload_requests()
    closed = lab.server.begin_round(epoch, 0, 8)
    for name, request in closed.upload_requests().items():
        reply = lab.sites[name].cached_upload(request)
        assert reply is not None
        closed.add_upload(name, reply)
    closed.unmask_requests()
    mark = StoreMark(bytes(32), 1)
    setup_parts: list[Callable[[bytes], object]] = [
        site.handle,
        site.round_of,
        site.cached_upload,
        lambda data: site.upload(data, np.zeros(8, np.uint32)),
        lambda data: step.add_upload(names(5)[0], data),
        lambda data: closed.add_unmask(names(5)[0], data),
        lambda data: check_receipt(identity(names(5)[0]).public, mark, data),
        lambda data: ServerEpoch.from_bytes(lab.federation, RUN, data),
        kind_of,
        site_of,
    ]
    return setup_parts + [cls.decode for cls in PARSERS]


def attack(seed: int, count: int = PER_SEED) -> int:
    lab, epoch, seeds = corpus()
    rng = random.Random(seed)
    calls = targets(lab, epoch)
    refused = 0
    for _ in range(count):
        data = damage(rng, seeds)
        call = rng.choice(calls)
        try:
            call(data)
        except RemoteProtocolError:
            refused += 1
        except SecAggMisuse as error:
            if error.reason is not Reason.SIZE_MISMATCH:
                raise  # only a damaged size in an otherwise valid request: the site's own vector does not fit it
    return refused


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**63))
def test_two_thousand_damaged_inputs(seed: int) -> None:
    assert attack(seed) > 0


@pytest.mark.slow
@settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**63))
def test_a_hundred_thousand_damaged_inputs(seed: int) -> None:
    assert attack(seed) > 0


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=300))
def test_bytes_of_hypothesis_own_choosing(data: bytes) -> None:
    for cls in PARSERS:
        for attempt in (data, b"QFSA\x01" + bytes([cls.KIND]) + data):
            try:
                assert cls.decode(attempt).encode() == attempt  # what is accepted is canonical
            except SecAggRefused:
                continue


def test_every_honest_message_is_canonical() -> None:
    _, _, seeds = corpus()
    kinds = {cls.KIND: cls for cls in PARSERS}
    seen = {kind_of(data) for data in seeds}
    assert {1, 2, 3, 4, 5, 6, 17, 18, 35, 48, 49, 65} <= seen
    for data in seeds:
        assert kinds[kind_of(data)].decode(data).encode() == data


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=80), at=st.floats(0, 1))
def test_damaged_federation_files(text: str, at: float) -> None:
    whole = corpus()[0].federation.to_text()
    cut = int(at * len(whole))
    for attempt in (text, whole[:cut] + text + whole[cut + len(text) :]):
        if attempt == whole:
            continue
        try:
            assert Federation.from_text(attempt).digest == corpus()[0].federation.digest  # white space
        except (SecAggMisuse, SecAggRefused):
            continue
