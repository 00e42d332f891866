"""What befalls a site in the middle of a run: kills, a cut network, a black hole, refusals; real processes over TLS.

Every test says what comes of it: the run's end, who is in which round, what the ledgers were charged with, and where
nothing of it may change the result, that the model is the uninterrupted run's, bit for bit.
"""

from __future__ import annotations

import json
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deployed import OPEN, Deployment, until
from proxy import Proxy

from qfed.federation.runfolder import Checkpoint, RunFolder
from qfed.privacy.ledger import Ledger, Limits
from qfed_client import auditlog

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
LONG = 400.0

Entry = dict[str, Any]


def entries(lab: Deployment, name: str) -> list[Entry]:
    return [value for _, value in auditlog.lines(lab.site(name)) if value]


def wait_until(lab: Deployment, name: str, true: Callable[[Entry], bool]) -> None:
    """Wait, looking all the time, for an entry of a site's audit log."""
    end = time.monotonic() + LONG
    while time.monotonic() < end:
        if any(true(entry) for entry in entries(lab, name)):
            return
        time.sleep(0.003)
    raise AssertionError(f"waited in vain at {name}; it said:\n{lab.log(name)}")


def about(what: str, kind: str, round: int, after: int = 0) -> Callable[[Entry], bool]:
    """An entry of this kind and round, past the first `after`."""
    return lambda entry: (
        entry["n"] > after
        and (entry["what"], entry.get("type"), entry.get("round")) == (what, kind, str(round))
        and entry.get("answer", "accepted") == "accepted"
    )


def end_of(lab: Deployment, run: str) -> Checkpoint:
    assert lab.wait(run, LONG) == "completed", lab.events(run)
    return RunFolder(lab.run_folder(run)).checkpoint()


def charges(lab: Deployment, name: str) -> list[tuple[str, int]]:
    """What a ledger says, row by row, read without qfed."""
    with closing(sqlite3.connect(lab.site(name) / "ledger.db")) as database:
        return list(database.execute("SELECT what, round FROM entry WHERE what != 'open' ORDER BY id"))


def has_ledger(lab: Deployment, name: str) -> bool:
    """Whether its tables are there."""
    file = lab.site(name) / "ledger.db"
    if not file.exists():
        return False
    with closing(sqlite3.connect(file)) as database:
        return bool(database.execute("SELECT count(*) FROM sqlite_master WHERE name = 'entry'").fetchone()[0])


def intact(lab: Deployment, name: str) -> None:
    """The site's own books agree with each other."""
    with closing(Ledger(lab.site(name) / "ledger.db", Limits(float("inf"), 1e-5))) as ledger:
        ledger.verify()
        heads = [chain.hex() for chain in ledger.heads()]
    found = auditlog.verify(lab.site(name), heads)
    assert found.problems == (), found.problems


def test_a_kill_after_the_upload_and_a_broken_network_change_nothing(tmp_path: Path) -> None:
    """site-0 is killed when its upload is ready and started again, site-1's network is cut and then a black hole.

    After that a site's policy is tightened under a running agent: the next run is refused by it, with the type only.
    """
    terms = (*OPEN, "training.rounds=3", "federation.deadline=400")
    with Deployment(tmp_path, *terms, sites=4, private=False, settings={"patience": 90.0}) as lab:
        with Proxy(lab.port) as proxy:
            lab.amend("site-1", server={"address": f"localhost:{proxy.port}"})
            lab.start_server()
            lab.start_sites()
            whole = end_of(lab, lab.submit())
            before = {name: len(entries(lab, name)) for name in lab.names}

            run = lab.submit()
            wait_until(lab, "site-0", about("decided", "train", 1, before["site-0"]))
            lab.kill("site-0")
            lab.start_site("site-0")
            wait_until(lab, "site-1", about("received", "train", 2, before["site-1"]))
            proxy.become("cut")
            until("site-1 to notice", lambda: "Trying again" in lab.log("site-1"))
            proxy.become("pass")
            wait_until(lab, "site-1", about("received", "train", 3, before["site-1"]))
            proxy.become("swallow")
            time.sleep(2)
            proxy.become("pass")
            again = end_of(lab, run)

            lab.amend("site-3", policy={"most_rounds": 2})
            refused = lab.submit()
            assert lab.wait(refused, LONG) == "failed"
            why = lab.events(refused, "failed")[0]["why"]
            assert "3 of 4 sites joined" in why
            assert "site-3: RoundsRefused" in why
            refusal = next(entry for entry in entries(lab, "site-3") if entry.get("answer") == "refused")
            assert "at most 2 rounds" in refusal["why"], "the text stays at the site"
            assert "at most 2" not in json.dumps(lab.events(refused)) + lab.log("server")
        assert np.array_equal(again.vector, whole.vector), "the same sums from the same uploads"
        assert [record.survivors for record in again.rounds] == [4, 4, 4]
        assert "Trying again" in lab.log("site-1")
        for name in lab.names:
            intact(lab, name)
            trained = [entry for entry in entries(lab, name) if about("decided", "train", 1)(entry)]
            assert {entry["bytes"] for entry in trained[1:]} == {trained[0]["bytes"]}


def test_a_kill_in_training_and_a_lost_committee_member(tmp_path: Path) -> None:
    """Private, five sites: one is killed when it trains, another between its upload and its part in unmasking."""
    private = ("privacy.mode=local", "training.local_steps=1500", "training.learning_rate=0.01", "training.rounds=3")
    terms = ("federation.quorum=0.6", "federation.deadline=400")
    with Deployment(tmp_path, *private, *terms, sites=5, settings={"patience": 4.0}) as lab:
        lab.start_server()
        lab.start_sites()
        run = lab.submit()
        until("site-0 to be charged, and so to train", lambda: has_ledger(lab, "site-0") and charges(lab, "site-0"))
        lab.kill("site-0")
        lab.start_site("site-0")
        wait_until(lab, "site-2", about("received", "train", 3))
        lab.processes["site-2"].send_signal(signal.SIGSTOP)  # so that nothing is unmasked before site-1 is gone
        wait_until(lab, "site-1", about("sent", "train", 3))
        lab.kill("site-1")
        lab.processes["site-2"].send_signal(signal.SIGCONT)
        end = end_of(lab, run)

        rounds = {record.round: record for record in end.rounds}
        lost = {dropout.site: dropout.reason for dropout in rounds[1].dropouts}
        assert "site-0" in lost, "killed in training: its part of the round is gone"
        assert rounds[1].survivors == 4
        assert rounds[3].survivors == 5, "site-1's upload counts: its masks were recovered from the others"
        last = [entry["type"] for entry in entries(lab, "site-1") if entry["what"] == "sent"][-1]
        assert last == "train", "it did not unmask"
        assert rounds[3].bytes.get("recovery", 0) > 0

        first = [what for what, round in charges(lab, "site-0") if round == 1]
        assert first == ["reserve"], "charged once, never given back, never trained again"
        assert [what for what, round in charges(lab, "site-0") if round == 3] == ["reserve", "settle"], "it went on"
        for name in ("site-1", "site-2", "site-3", "site-4"):
            assert [round for what, round in charges(lab, name) if what == "reserve"] == [1, 2, 3]
        for name in lab.names:
            intact(lab, name)
