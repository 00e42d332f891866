"""Checks on several threads: the same results and the same refusals as on one."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from secagg_lab import RUN, Lab, expected, identity, make_federation, names

from qfed.secagg import ClientSession, ClientStore, Reason, SecAggRefused, ServerSession
from qfed.secagg.parallel import on_threads


@pytest.mark.parametrize("threads", [1, 2, 3, 64])
@pytest.mark.parametrize("count", [0, 1, 7, 8, 50])
def test_results_come_in_order_whatever_the_threads(count: int, threads: int) -> None:
    assert on_threads(lambda item: item * item, range(count), threads) == [item * item for item in range(count)]


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_first_items_error_is_raised(threads: int) -> None:
    def odd_ones_fail(item: int) -> int:
        if item in (11, 20, 41):
            raise ValueError(item)
        return item

    with pytest.raises(ValueError, match="11"):
        on_threads(odd_ones_fail, range(50), threads)


def test_more_than_one_thread_works_on_it_and_none_is_left() -> None:
    before = threading.active_count()
    met = threading.Barrier(2, timeout=30)  # broken unless two threads are there at once
    on_threads(lambda item: met.wait() if item in (0, 4) else 0, range(8), 2)
    assert threading.active_count() == before


def test_a_federation_on_two_threads_sums_and_refuses_as_on_one() -> None:
    federation = make_federation(10)
    sites = {
        name: ClientSession(identity(name), federation, ClientStore(":memory:"), RUN, threads=2) for name in names(10)
    }
    lab = Lab(federation, ServerSession(federation, RUN, threads=2), sites)
    setup = lab.server.begin_epoch(1, names(10))
    bundles = lab.ask(setup.hello())
    spoilt = names(10)[8]
    bundles[spoilt] = bundles[spoilt][:-1] + bytes([bundles[spoilt][-1] ^ 1])
    reveals = lab.ask(setup.reveal(bundles))
    assert {site: error.reason for site, error in setup.refused.items()} == {spoilt: Reason.KEM_KEY_SWAPPED}
    epoch = setup.finish(lab.ask(setup.setup(reveals)))
    for member, reply in lab.ask(epoch.confirm_requests()).items():
        epoch.add_confirmation(member, reply)
    vectors = lab.vectors(2_000_003)
    step = lab.server.begin_round(epoch, 0, 2_000_003)
    for site, request in step.upload_requests().items():
        step.add_upload(site, sites[site].upload(request, vectors[site]))
    asked = step.unmask_requests()
    away = next(iter(asked))
    for member, reply in lab.ask(asked, [away]).items():
        step.add_unmask(member, reply)
    for member, reply in lab.ask(step.recovery_requests()).items():
        step.add_recovery(member, reply)
    result = step.result()
    assert result.survivors == tuple(name for name in names(10) if name != spoilt)
    assert np.array_equal(result.total, expected(vectors, result.survivors))


def test_a_spoilt_bundle_is_found_on_any_thread() -> None:
    federation = make_federation(10)
    lab = Lab(federation, ServerSession(federation, RUN), {})
    for name in names(10):
        lab.sites[name] = ClientSession(identity(name), federation, ClientStore(":memory:"), RUN, threads=2)
    setup = lab.server.begin_epoch(1, names(10))
    (request, *_) = setup.reveal(lab.ask(setup.hello())).values()
    middle = len(request) - 2500  # in the last bundle, so on the second thread
    with pytest.raises(SecAggRefused):
        lab.sites[names(10)[0]].handle(request[:middle] + bytes([request[middle] ^ 1]) + request[middle + 1 :])
    assert lab.sites[names(10)[0]].handle(request)
