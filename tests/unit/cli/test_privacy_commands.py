"""qfed audit, calibrate and ledger: pages, JSON, pictures, exit status."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from unittest.mock import patch

import pytest
from typer.testing import CliRunner, Result

from qfed.cli.app import app
from qfed.errors import ConfigError, StateError
from qfed.privacy import clipping
from qfed.privacy.accounting import Releases
from qfed.privacy.ledger import Ledger, Limits

SMALL = [
    "data.source=wine", "model.kind=twin", "model.wires=2", "model.layers=1", "federation.sites=5",
    "privacy.mode=local", "training.rounds=3", "training.local_steps=4", "training.batch_size=30",
]  # fmt: skip
PNG = b"\x89PNG\r\n"


def qfed(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False)


def small(*changes: str) -> list[str]:
    return [part for change in (*SMALL, *changes) for part in ("--set", change)]


# -- audit -----------------------------------------------------------------------------------------------------------


def test_an_audit_prints_a_page_and_writes_a_picture(tmp_path: Path) -> None:
    done = qfed("audit", *small(), "--canaries", "200", "--sites", "2", "--out", str(tmp_path / "new"))
    assert done.exit_code == 0, done.output
    for text in ("PASSED", "noise level", "canary gain", "proven, f-DP", "lower bound"):
        assert text in done.output
    assert (tmp_path / "new" / "audit.png").read_bytes().startswith(PNG)
    found = json.loads((tmp_path / "new" / "audit.json").read_text())
    assert found["format"] == "qfed.audit/1"
    assert found["passed"] is True
    assert {gate["name"] for gate in found["gates"]} >= {"noise level", "noise correlation", "canary gain", "ledger"}


def test_a_failed_audit_says_so_and_exits_with_1() -> None:
    honest = clipping.gaussian
    with patch.object(clipping, "gaussian", lambda size, stddev: 0.8 * honest(size, stddev)):
        done = qfed("audit", *small(), "--canaries", "200", "--sites", "2", "--json")
    assert done.exit_code == 1
    found = json.loads(done.stdout)
    assert found["passed"] is False
    assert "noise level" in found["failed"]


def test_an_audit_of_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.toml"):
        qfed("audit", str(tmp_path))


# -- calibrate -------------------------------------------------------------------------------------------------------


def test_calibrate_says_what_a_run_will_cost_and_draws_it(tmp_path: Path) -> None:
    shared = ["--set", "privacy.mode=shared", "--set", "training.local_steps=1"]
    done = qfed("calibrate", *small(), *shared, "--out", str(tmp_path / "new"))
    assert done.exit_code == 0, done.output
    for text in ("noise multiplier", "of a budget of 3", "n_min", "may drop out", "share alone", "A person"):
        assert text in " ".join(done.output.split()), text
    assert (tmp_path / "new" / "calibration.png").read_bytes().startswith(PNG)
    found = json.loads((tmp_path / "new" / "calibration.json").read_text())
    assert [mode["mode"] for mode in found["modes"]] == ["shared", "local", "site"]


def test_calibrate_goes_back_from_noise_to_epsilon() -> None:
    there = json.loads(qfed("calibrate", *small(), "--json").stdout)
    local = next(mode for mode in there["modes"] if mode["mode"] == "local")
    back = json.loads(qfed("calibrate", *small(), "--json", "--noise", str(2 * local["noise_multiplier"])).stdout)
    quieter = next(mode for mode in back["modes"] if mode["mode"] == "local")
    assert local["epsilon"] == pytest.approx(3.0, abs=1e-3)
    assert quieter["epsilon"] < 1.5


def test_calibrate_has_nothing_to_say_without_privacy() -> None:
    with pytest.raises(ConfigError, match="no noise to calibrate"):
        qfed("calibrate", "--set", "privacy.mode=off")


# -- ledger ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.db"
    book = Ledger(path, Limits(3.0, 1e-5))
    for round in (1, 2):
        held = book.reserve("clinic", "first", round, Releases(1.0, 20.0, 4), planned_rounds=3, request=b"\x01")
        book.settle(held, 4, b"answer")
    book.close()
    return path


def test_ledger_show_tells_spent_and_held(ledger: Path) -> None:
    text = qfed("ledger", "show", str(ledger)).output
    assert "2 of 3" in text
    assert "spent in all" in text
    assert "once all runs have ended" in text
    found = json.loads(qfed("ledger", "show", str(ledger), "--json").output)
    assert found["runs"][0] == {
        "dataset": "clinic", "run": "first", "rounds": 2, "planned_rounds": 3, "steps": 8, "sampling_rate": 1.0,
        "noise_multiplier": 20.0,
    }  # fmt: skip
    assert 0 < found["spent"]["clinic"] < found["committed"]["clinic"]


def test_ledger_verify_and_export(ledger: Path) -> None:
    assert "5 rows, chain intact" in qfed("ledger", "verify", str(ledger)).output
    found = json.loads(qfed("ledger", "verify", str(ledger), "--json").output)
    rows = json.loads(qfed("ledger", "export", str(ledger)).output)
    assert [row["what"] for row in rows] == ["open", "reserve", "settle", "reserve", "settle"]
    assert rows[-1]["chain"] == found["head"]
    table = list(csv.DictReader(io.StringIO(qfed("ledger", "export", str(ledger), "--format", "csv").output)))
    assert [row["what"] for row in table] == [row["what"] for row in rows]
    assert table[0]["request"] == "01"


def test_an_edited_ledger_is_not_exported(ledger: Path) -> None:
    import sqlite3

    raw = sqlite3.connect(ledger)
    raw.execute("DROP TRIGGER no_update")
    raw.execute("UPDATE entry SET steps = 1 WHERE id = 2")
    raw.commit()
    raw.close()
    for command in ("verify", "export", "show"):
        with pytest.raises(StateError, match="row 2"):
            qfed("ledger", command, str(ledger))


def test_a_ledger_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no ledger"):
        qfed("ledger", "export", str(tmp_path / "none.db"))
