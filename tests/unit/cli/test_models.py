"""qfed models: every model is listed with its size and shown in full."""

from __future__ import annotations

import re

import pytest
from typer.testing import CliRunner

from qfed.cli.app import app
from qfed.config import ARCHITECTURES
from qfed.errors import ConfigError
from qfed.models.library import LIBRARY


def shown(*arguments: str) -> str:
    done = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["models", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return re.sub(r"\s+", " ", done.output)


def test_list_has_every_model_with_equal_sizes() -> None:
    text = shown("list")
    for name, entry in LIBRARY.items():
        row = re.search(rf"{name}: {re.escape(entry.title)} \d+ \d+ ([\d,]+) ([\d,]+) ", text)
        assert row is not None, name
        assert row[1] == row[2]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_show_tells_source_twin_and_circuit(name: str) -> None:
    text = shown("show", name)
    entry = LIBRARY[name]
    for part in (entry.source, entry.trains, entry.twin, f"model.architecture={name}", "wires", "cost: about"):
        assert part in text


def test_set_changes_the_model() -> None:
    assert "wires, layers: 4, 2" in shown("show", "variational")
    assert "wires, layers: 5, 1" in shown("show", "variational", "--set", "model.wires=5", "--set", "model.layers=1")


def test_an_unknown_model_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"'perceptron'.*reuploading"):
        shown("show", "perceptron")
