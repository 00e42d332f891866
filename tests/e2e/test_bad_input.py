"""Bad input at the command line: one paragraph, exit status 2, no traceback, and no folder left behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from qfed.cli.app import main

pytestmark = pytest.mark.e2e

QFED = Path(sys.executable).parent / "qfed"
COLUMNS = """
[data]
source = "table.csv"
columns = [
  {name = "age", low = 0, high = 120},
  {name = "smoker", kind = "categorical", categories = ["yes", "no"]},
]
target = {name = "ill", classes = ["0", "1"]}
[federation]
sites = 3
"""
HEADER = "age,smoker,ill\n"
GOOD = HEADER + "".join(f"{20 + i},{'yes' if i % 2 else 'no'},{i % 2}\n" for i in range(30))
CIRCUIT = """
import pennylane as qml

def circuit(inputs, weights):
    qml.AngleEmbedding(inputs, wires=range(4))
    qml.BasicEntanglerLayers(weights, wires=range(4))
    return [qml.expval(qml.PauliZ(w)) for w in range(4)]
"""

# name, arguments or configuration text, table (None: no file), and what the message must name
CASES: list[tuple[str, list[str], str, str | None, list[str]]] = [
    ("misspelt key", [], "[privacy]\nepsilom = 3\n", None, ["run.toml", "line 2", "privacy.epsilom", "did you mean"]),
    ("misspelt section", [], "[privasy]\nepsilon = 3\n", None, ["privasy", "did you mean 'privacy'"]),
    ("negative epsilon", ["--set", "privacy.epsilon=-1"], "", None, ["privacy.epsilon=-1", "greater than 0"]),
    ("a word for a number", ["--set", "training.rounds=many"], "", None, ["training.rounds='many'", "integer"]),
    ("not TOML", [], "[privacy\n", None, ["run.toml", "TOML"]),
    ("--set without a value", ["--set", "privacy.epsilon"], "", None, ["--set", "privacy.epsilon"]),
    ("more sites than records", ["--set", "federation.sites=600"], "", None, ["federation.sites=600", "569"]),
    ("unknown data set", ["--set", "data.source=brest_cancer"], "", None, ["brest_cancer", "did you mean"]),
    ("missing file", [], COLUMNS, None, ["table.csv"]),
    ("no rows", [], COLUMNS, HEADER, ["table.csv", "zero rows"]),
    ("missing column", [], COLUMNS, "age,ill\n3,1\n", ["smoker"]),
    ("an empty cell", [], COLUMNS, GOOD + ",yes,1\n", ["age", "missing"]),
    ("a string in a number", [], COLUMNS, GOOD + "old,yes,1\n", ["age", "old"]),
    ("an unknown category", [], COLUMNS, GOOD + "30,perhaps,1\n", ["smoker", "perhaps"]),
    ("a circuit that does not fit its weights", ["--set", "model.circuit=own.py:circuit", "--set",
     "model.weight_shapes={weights=[2,3]}"], "", None, ["weights", "own.py"]),
    ("no such function", ["--set", "model.circuit=own.py:circus", "--set", "model.weight_shapes={weights=[2,4]}"], "",
     None, ["circus", "own.py"]),
    ("too many wires", ["--set", "model.wires=21"], "", None, ["model.wires=21", "20"]),
    ("a budget too small for one round", ["--set", "privacy.epsilon=0.0000001"], "", None, ["epsilon"]),
    ("a noise that does not fit the budget", ["--set", "privacy.noise_multiplier=0.5"], "", None, ["noise_multiplier"]),
    ("bits that overflow the ring", ["--set", "privacy.mode=local", "--set", "secagg.bits=24"], "", None, ["bits"]),
    ("a failure of no site", ["--set", "simulation.failures=[{site=99,round=1}]"], "", None, ["site=99"]),
    ("unknown engine", ["--engine", "rai"], "", None, ["simulation.engine='rai'", "inprocess"]),
]  # fmt: skip


def prepare(folder: Path, text: str, table: str | None) -> set[str]:
    (folder / "own.py").write_text(CIRCUIT)
    (folder / "run.toml").write_text(text)
    if table is not None:
        (folder / "table.csv").write_text(table)
    return names_in(folder)


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name != "__pycache__"}


def check(error: str, named: list[str]) -> None:
    assert error.startswith("error:")
    assert "Traceback" not in error
    assert len(error) < 1500
    assert error.count("\n") == 1, "one paragraph"
    for name in named:
        assert name in error


def arguments_of(arguments: list[str]) -> list[str]:
    return ["simulate", "run.toml", *arguments, "--out", "out", "--quiet"]


@pytest.mark.parametrize(
    ("arguments", "text", "table", "named"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_bad_input(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    text: str,
    table: str | None,
    named: list[str],
) -> None:
    """The whole command, in this process: importing torch 22 times would take minutes."""
    before = prepare(tmp_path, text, table)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["qfed", *arguments_of(arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    written = capsys.readouterr()
    assert ended.value.code == 2
    check(written.err, named)
    assert written.out == ""
    assert names_in(tmp_path) == before, "nothing half-written is left behind"


@pytest.mark.parametrize("name", ["misspelt key", "a string in a number", "a budget too small for one round"])
def test_bad_input_to_the_installed_command(tmp_path: Path, name: str) -> None:
    arguments, text, table, named = next(case[1:] for case in CASES if case[0] == name)
    before = prepare(tmp_path, text, table)
    done = subprocess.run([QFED, *arguments_of(arguments)], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done.stderr
    check(done.stderr, named)
    assert done.stdout == ""
    assert names_in(tmp_path) == before


def test_an_earlier_result_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    for extra in ([], ["--force"]):
        done = subprocess.run([QFED, "simulate", "--out", "out", *extra], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 2
        assert "not a simulation" in done.stderr
    assert (tmp_path / "out" / "thesis.txt").read_text() == "mine"
