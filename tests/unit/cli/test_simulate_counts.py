"""qfed simulate with kind = "synthesize": the release, and the generator that is fitted to it at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from qfed.cli.app import app
from qfed.config import load_config
from qfed.generative.release import Release

CONFIG = """
name = "wine-counts"
kind = "synthesize"
[data]
source = "wine"
[coding]
columns = ["alcohol", "flavanoids", "proline"]
[federation]
sites = 5
[synth]
generator = "independent"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "run.toml"
    file.write_text(CONFIG, encoding="utf-8")
    return file


def test_a_release_alone(config: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["simulate", str(config), "--out", str(tmp_path / "out"), "--no-fit", "-q"])
    assert done.exit_code == 0, done.output
    told = " ".join(done.output.split())
    assert "epsilon spent 3.00 (of 3 budgeted, with delta 1e-5)" in told
    assert "5 of 5 (in the sum)" in told
    assert Release.load(tmp_path / "out").privacy["mode"] == "shared"
    assert not (tmp_path / "out" / "synth").exists()
    again = load_config(tmp_path / "out" / "config.toml")
    assert again == load_config(config), "what is written reads back as what was asked for"


@pytest.mark.slow
def test_a_release_and_what_is_made_of_it(config: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["simulate", str(config), "--out", str(tmp_path / "out"), "-q"])
    assert done.exit_code == 0, done.output
    assert "trained on them, tested on real ones" in done.output
    made = {path.name for path in (tmp_path / "out" / "synth").iterdir()}
    assert {"model.npz", "statistics.npz", "evaluation.json", "evaluation.html"} <= made
