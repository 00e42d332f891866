"""Who is let in, and what a site is told when it is not: agents as processes that load no torch."""

from __future__ import annotations

import signal
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from deployed import PATIENCE, QFED, Deployment, until

from qfed.federation.authority import Authority
from qfed.secagg import Identity
from qfed_client import auditlog

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

WRONG_CLOCK = """
import sys, logging
from datetime import timedelta
from pathlib import Path
from qfed._flower.fleet import utc_now
from qfed_client.connect import agent_for
logging.basicConfig(level=logging.INFO)
agent_for(Path(sys.argv[1]), clock=lambda: utc_now() + timedelta(seconds=600)).serve()
"""
"""The agent as `qfed client` starts it, with a clock that is ten minutes fast."""


STUCK = """
import sys, time
from qfed.cli.app import main
from qfed_client.agent import InstalledApp
InstalledApp.load = lambda self: time.sleep(3600)
main()
"""
"""`qfed client` on a machine that takes an hour to load torch."""


def says(lab: Deployment, name: str, words: str) -> None:
    until(f"{name} to say {words!r}, got {lab.log(name)[-500:]!r}", lambda: words in lab.log(name))


def status(lab: Deployment, name: str) -> str:
    found = lab.status()
    assert found is not None
    return next(str(site["status"]) for site in found["sites"] if site["name"] == name)


def test_a_site_comes_and_goes_and_says_what_is_wrong(tmp_path: Path) -> None:
    with Deployment(tmp_path, preload=False) as lab:
        lab.start_site("site-0")  # before there is a server
        says(lab, "site-0", "no connection to localhost")
        lab.start_server()
        until("site-0 to be online", lambda: "site-0" in lab.online())

        # One agent a folder; and one that is stopped is offline at once, with its books closed.
        second = lab.start("second", [QFED, "client", "--site", lab.site("site-0")])
        assert second.wait(PATIENCE) == 2
        assert "another agent serves" in lab.log("second")
        assert lab.kill("site-0", signal.SIGTERM) == 0
        assert status(lab, "site-0") == "offline"
        assert auditlog.verify(lab.site("site-0")).problems == ()

        # Killed without a word it is taken for online for half a minute, and let in again all the same.
        lab.start_site("site-0")
        until("site-0 to be online", lambda: "site-0" in lab.online())
        lab.kill("site-0")
        before = lab.log("site-0").count(" connected to")
        lab.start_site("site-0")
        until("site-0 to be connected again", lambda: lab.log("site-0").count(" connected to") > before)

        # A clock that is ten minutes fast.
        lab.start("site-1", [sys.executable, "-c", WRONG_CLOCK, lab.site("site-1")])
        says(lab, "site-1", "ahead of the aggregator's")
        assert status(lab, "site-1") == "registered"
        lab.kill("site-1")
        lab.start_sites("site-1")

        # A key that is in the site's file but not in the roster that the server has.
        (lab.site("site-2") / "identity.key").unlink()
        Identity.generate("site-2", node=True).save(lab.site("site-2") / "identity.key")
        other = lab.start_site("site-2")
        assert other.wait(PATIENCE) == 2
        assert "is not the key that the federation file has" in lab.log("site-2")


def test_a_certificate_that_expires_and_is_renewed(tmp_path: Path) -> None:
    with Deployment(tmp_path) as lab:
        authority = Authority.open(lab.coordinator).renewed(datetime.now(UTC) - timedelta(days=3))  # the same key
        began = time.monotonic()
        lab.start_server()
        lab.start_sites("site-0")
        took = time.monotonic() - began  # on this machine, now
        lab.kill("server")
        hosts, left = ["localhost", "127.0.0.1"], timedelta(seconds=10 + 3 * took)
        authority.certify(lab.data / "tls", hosts, datetime.now(UTC) - timedelta(days=1) + left, days=1)
        end = datetime.now(UTC) + left
        lab.start_server()
        until("site-0 to be back", lambda: "site-0" in lab.online())
        time.sleep(max(0.0, (end - datetime.now(UTC)).total_seconds() + 1))
        lab.start_site("site-1")
        says(lab, "site-1", "has expired; its operator must renew it")
        assert status(lab, "site-1") == "registered"
        lab.kill("server")
        authority.certify(lab.data / "tls", hosts, datetime.now(UTC))
        lab.start_server()
        until("both sites to be online", lambda: {"site-0", "site-1"} <= lab.online())
        assert "connected to localhost" in lab.log("site-1")


def test_a_site_that_is_stopped_while_it_loads_leaves_at_once_and_cleanly(tmp_path: Path) -> None:
    with Deployment(tmp_path) as lab:
        lab.start_server()
        lab.start("site-0", [sys.executable, "-c", STUCK, "client", "--site", lab.site("site-0")])
        lab.start_site("site-1")
        for name in ("site-0", "site-1"):
            says(lab, name, "connected to")
            assert lab.kill(name, signal.SIGTERM) == 0, lab.log(name)
            assert "disconnected from" in lab.log(name)
            assert "Traceback" not in lab.log(name)
            assert status(lab, name) == "offline"
            assert auditlog.verify(lab.site(name)).problems == ()
