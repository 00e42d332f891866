"""A whole private run on a real server with three real agents over TLS, and what is left behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from deployed import Deployment

from qfed.models import load_model
from qfed.report import read_result

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def test_a_private_run_from_submission_to_model(tmp_path: Path) -> None:
    with Deployment(tmp_path) as lab:
        telling = lab.site("site-1") / "site.toml"
        telling.write_text(telling.read_text().replace("tell_epsilon = false", "tell_epsilon = true"))
        lab.start_server()
        lab.start_sites()
        run = lab.submit()
        assert lab.wait(run) == "completed", lab.log("server")
        assert [event["event"] for event in lab.events(run)] == [
            "submitted", "joined", "round", "round", "final", "completed",
        ]  # fmt: skip
        lab.qfed("fetch", run, "--out", tmp_path / "out", "--data", lab.data)
        result = read_result(tmp_path / "out")
        assert result.status == "completed"
        told = {site.name: site.epsilon for site in result.sites}
        assert told == {"site-0": None, "site-1": pytest.approx(result.privacy.epsilon), "site-2": None}
        load_model(tmp_path / "out")
