"""Fixtures of every test that runs whole small federations in this process (tests of simulation, server, client)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Models this small only wait for torch's threads, and on a busy machine they wait long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _sites_closed() -> Iterator[None]:
    from qfed_client.app import close_sites

    yield
    close_sites()
