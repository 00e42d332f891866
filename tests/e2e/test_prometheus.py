"""A real Prometheus, where there is one: it scrapes a deployed federation and answers what Grafana would ask."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from deployed import Deployment

TRY = Path(__file__).parents[2] / "deployments" / "try" / "prometheus.py"


@pytest.mark.e2e
@pytest.mark.timeout(900)
def test_every_panel_and_alert_is_answered(tmp_path: Path) -> None:
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not on the PATH, and pip cannot install it")
    with Deployment(tmp_path, "privacy.epsilon=3") as lab:
        lab.start_server()
        lab.start_sites()
        assert lab.wait(lab.submit(), patience=500) == "completed"
        done = subprocess.run(
            [sys.executable, TRY, lab.data],
            capture_output=True,
            text=True,
            timeout=300,
            env=os.environ | {"TMPDIR": str(tmp_path)},
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.count(" ok, ") == 7
        assert "Sites online" in done.stdout
