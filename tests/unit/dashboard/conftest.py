"""Fixtures of the dashboard's tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from dashboard_desk import NOW, Desk, add_run

from qfed_server.status import SiteStatus


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """Five sites, one of them away; no run."""
    names = [f"site-{i:02d}" for i in range(5)]
    sites = [SiteStatus(name, i, "online", NOW - 2, "0.1.0", True) for i, name in enumerate(names)]
    sites[3] = SiteStatus("site-03", 3, "offline", NOW - 200, "0.1.0")
    return Desk(tmp_path, sites=sites)


@pytest.fixture
def run_of(desk: Desk) -> Callable[..., Path]:
    """`add_run` into the desk's data directory."""
    return lambda run, status, **changes: add_run(desk.data, run, status, **changes)
