"""Puts the small runs (tests/unit/simulation/small_runs.py) on the path of these tests, and closes their sites."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "simulation"))


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
