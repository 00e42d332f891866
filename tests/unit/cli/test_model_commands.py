"""qfed predict and qfed model: a simulated model handed over and used, and every mistake told in one line."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from small_runs import small
from typer.testing import CliRunner

from qfed import load_model, simulate
from qfed.cli.app import app
from qfed.data import embedded
from qfed.data.load import load
from qfed.errors import ConfigError, DataError
from qfed.secagg import Identity


def qfed(*arguments: str | Path) -> str:
    done = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def refused(*arguments: str | Path) -> str:
    with pytest.raises(ConfigError) as error:
        qfed(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("handover")
    simulate(small("data.source=breast_cancer"), out=folder / "run")
    names = [column.name for column in embedded.COLUMNS["breast_cancer"]]
    values = embedded.raw("breast_cancer")[0][:50]
    with (folder / "data.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["patient", *names], *([n, *row] for n, row in enumerate(values))])
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "place"))


def test_predict_gives_the_models_answers_in_the_tables_order(place: Path) -> None:
    told = qfed("predict", place / "run", place / "data.csv", "--out", place / "out.csv", "--probabilities")
    assert "wrote 50 answers" in told
    rows = list(csv.DictReader(io.StringIO((place / "out.csv").read_text())))
    expected = load_model(place / "run").predict(load(small("data.source=breast_cancer").data).records.x[:50])
    found = np.array([[float(row["p(malignant)"]), float(row["p(benign)"])] for row in rows])
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert [row["diagnosis"] for row in rows] == [("malignant", "benign")[i] for i in expected.argmax(1)]
    shown = CliRunner().invoke(app, ["predict", str(place / "run" / "model.json"), str(place / "data.csv")])
    screen = list(csv.reader(io.StringIO(shown.stdout)))
    assert screen == [["diagnosis"], *([row["diagnosis"]] for row in rows)]


def test_values_out_of_range_are_counted(place: Path) -> None:
    lines = (place / "data.csv").read_text().splitlines()
    first = lines[1].split(",")
    first[1] = "1e6"
    (place / "data.csv").write_text("\n".join([lines[0], ",".join(first), *lines[2:]]) + "\n")
    assert "1 of 50 values of mean radius lie outside the range" in qfed("predict", place / "run", place / "data.csv")


def test_mistakes_in_the_table_and_in_the_model_are_told(place: Path) -> None:
    (place / "short.csv").write_text("mean radius\n1\n")
    assert "lacks the columns" in refused("predict", place / "run", place / "short.csv")
    text = (place / "data.csv").read_text()
    (place / "text.csv").write_text(text.replace("\n0,", "\n0,many", 1))
    with pytest.raises(DataError, match="expected numbers"):
        qfed("predict", place / "run", place / "text.csv")
    assert "no file" in refused("predict", place / "run", place / "none.csv")
    assert ".csv and .parquet" in refused("predict", place / "run", place / "data.xlsx")
    assert "model.json" in refused("predict", place, place / "data.csv")
    assert "cannot write" in refused("predict", place / "run", place / "data.csv", "--out", place / "none" / "o.csv")
    about = json.loads((place / "run" / "model.json").read_text())
    del about["schema"]["columns"]
    (place / "run" / "model.json").write_text(json.dumps(about))
    assert "older qfed" in refused("predict", place / "run", place / "data.csv")


def test_show_verify_and_sign(place: Path) -> None:
    run = place / "run"
    assert qfed("model", "show", run) == (run / "MODEL_CARD.md").read_text()
    assert json.loads(qfed("model", "show", run, "--json")) == json.loads((run / "card.json").read_text())
    assert "nobody vouches" in qfed("model", "verify", run)
    coordinator = Identity.generate("coordinator")
    coordinator.save(place / "coordinator.key")
    assert coordinator.fingerprint() in refused("model", "verify", run, "--signer", coordinator.fingerprint())
    qfed("model", "sign", run, "--key", place / "coordinator.key")
    typed = coordinator.fingerprint().upper().replace(" ", "")
    assert "signed by coordinator" in qfed("model", "verify", run, "--signer", typed)
    assert "not signed by" in refused("model", "verify", run, "--signer", "0" * 40)
    (run / "config.toml").write_text("")
    assert "config.toml is not the file" in refused("model", "verify", run)
    assert "config.toml is not the file" in refused("model", "sign", run, "--key", place / "coordinator.key")


@pytest.mark.slow
def test_export_says_how_to_use_the_file(place: Path) -> None:
    told = qfed("model", "export", place / "run", "--to", "torch", "--out", place / "m.pt2")
    assert "torch.export.load" in told
    assert "probabilities of malignant, benign" in told
    assert (place / "m.pt2").exists()
    assert "is a file .onnx" in refused("model", "export", place / "run", "--to", "onnx", "--out", place / "m.pt2")
