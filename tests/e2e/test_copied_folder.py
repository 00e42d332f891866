"""A site's folder that was copied: an old copy, a copy beside the original, one that is started from a copied store."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest
from deployed import PATIENCE, QFED, Deployment, until
from small_runs import charges

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def copied(lab: Deployment, name: str) -> bool:
    found = lab.status()
    assert found is not None
    return next(bool(site["copied"]) for site in found["sites"] if site["name"] == name)


def test_a_copy_is_found_whether_it_is_old_or_runs_beside_the_original(tmp_path: Path) -> None:
    with Deployment(tmp_path) as lab:
        old = Path(shutil.copytree(lab.site("site-0"), tmp_path / "old"))  # before anything was charged
        lab.start_server()
        lab.start_sites()
        assert lab.wait(lab.submit()) == "completed"
        spent = len(charges(lab.site("site-0") / "ledger.db"))
        assert spent == 2

        # Started in place of the original, the old copy knows nothing of what was spent, and the aggregator does.
        assert lab.kill("site-0", signal.SIGTERM) == 0
        lab.start("old", [QFED, "client", "--site", old])
        until("the copy to be online", lambda: "site-0" in lab.online())
        run = lab.submit()
        assert lab.wait(run) == "failed"
        assert "site-0: RolledBack" in lab.state(run)["why"]
        said = "a copy of this folder took part from another place"
        until("the copy to be told", lambda: said in lab.log("old"))
        assert charges(old / "ledger.db") == [], "nothing was charged, so nothing was read"

        # Beside the original: neither is served, and both are told; until one of them is gone.
        lab.start_site("site-0")
        until("the server to notice", lambda: copied(lab, "site-0"))
        assert "two agents speak for site=site-0" in lab.log("server")
        assert "two agents" in lab.qfed("status", "--data", lab.data)
        for name in ("old", "site-0"):
            until(f"{name} to be told", lambda name=name: "two agents speak for this site" in lab.log(name))  # type: ignore[misc]
        assert "qfed" in lab.qfed("doctor", "--server", lab.data, status=1)
        lab.kill("old")
        until("the original to be served", lambda: not copied(lab, "site-0") and "site-0" in lab.online())
        assert lab.wait(lab.submit()) == "completed"
        assert len(charges(lab.site("site-0") / "ledger.db")) == 2 * spent

        # A copy with the state of secure aggregation in it is told by itself, before it connects.
        late = Path(shutil.copytree(lab.site("site-0"), tmp_path / "late"))
        assert lab.start("late", [QFED, "client", "--site", late]).wait(PATIENCE) == 2
        until("it to say why", lambda: "was copied or moved here" in lab.log("late"))
