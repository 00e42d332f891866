"""The newcomer's walk, deployments/walk.sh: keys, federation, server, three agents, a run, a model, both doctors."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.e2e
@pytest.mark.timeout(900)
def test_from_nothing_to_a_model(tmp_path: Path) -> None:
    place = tmp_path / "walk"
    environment = os.environ | {"QFED": str(Path(sys.executable).parent / "qfed"), "PYTHON": sys.executable}
    done = subprocess.run(
        ["bash", ROOT / "deployments" / "walk.sh", place],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=840,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert done.stdout.count(" 0 failed") == 3, done.stdout[-4000:]
    assert "would take part" in done.stdout
    result = json.loads((place / "model" / "result.json").read_text())
    assert result["status"] == "completed"
    assert result["final"]["score"] > 0.7
    card = json.loads((place / "model" / "card.json").read_text())
    assert (card["provenance"]["origin"], card["provenance"]["federation"]) == ("deployed", "study")
    rows = list(csv.DictReader((place / "predictions.csv").read_text().splitlines()))
    truth = list(csv.DictReader((place / "north" / "records.csv").read_text().splitlines()))
    right = sum(row["diagnosis"] == record["diagnosis"] for row, record in zip(rows, truth, strict=True))
    assert right / len(rows) > 0.7
    secrets = [
        value
        for key in place.rglob("*.key")
        for value in (json.loads(key.read_text()).values() if key.read_text().startswith("{") else ())
        if len(str(value)) > 40
    ]
    assert secrets
    logs = done.stdout + "".join(log.read_text() for log in place.glob("*.log"))
    assert not any(str(secret) in logs for secret in secrets)
