"""qfed synth on the command line: a fit, its samples, and what is refused before anything is read."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from qfed.cli.app import app
from qfed.errors import ConfigError

FIT = ("--set", 'coding.columns=["mean radius","mean texture"]', "--generator", "independent")


def run(*words: str) -> str:
    done = CliRunner().invoke(app, ["synth", *words], catch_exceptions=True)
    if done.exception is not None:
        raise done.exception
    return done.output


def test_fit_and_sample_repeat_the_statement(tmp_path: Path) -> None:
    model, file = str(tmp_path / "model"), str(tmp_path / "s.csv")
    fitted = run("fit", "--out", model, *FIT)
    assert "Private counts: epsilon 3" in fitted
    assert "Private counts: epsilon 3" in run("sample", model, "30", "--out", file)
    assert len(Path(file).read_text().splitlines()) == 31
    with pytest.raises(ConfigError, match=r"s\.csv exists; .*--force"):
        run("sample", model, "30", "--out", file)
    with pytest.raises(ConfigError, match=r"holds a fitted generator; .*--force"):
        run("fit", "--out", model, *FIT)


def test_without_privacy_every_output_says_so(tmp_path: Path) -> None:
    model, file = str(tmp_path / "model"), str(tmp_path / "s.csv")
    assert "NO PRIVACY" in run("fit", "--out", model, "--no-privacy", *FIT)
    assert "NO PRIVACY" in run("sample", model, "5", "--out", file)
    with pytest.raises(ConfigError, match="--no-privacy"):
        run("fit", "--out", str(tmp_path / "other"), "--set", "privacy.mode=off", *FIT)
    with pytest.raises(ConfigError, match=r"\.csv or \.parquet, got 's\.txt'"):
        run("sample", model, "5", "--out", str(tmp_path / "s.txt"))
