"""The README is true: its commands run as they stand, its Python too, its tables are those of the recorded results."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BIN = Path(sys.executable).parent
TOWNS = ("north", "south", "west")
CLINIC = "age,smoker,hospital,ill\n" + "".join(
    f"{25 + i % 50},{'yes' if i % 3 else 'no'},{TOWNS[i % 3]},{'yes' if i % 50 > 20 else 'no'}\n" for i in range(90)
)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


def commands() -> list[str]:
    lines = [line.split("  #")[0].strip() for block in blocks("bash") for line in block.splitlines()]
    return [line for line in lines if line]


def test_the_first_two_commands_set_everything_up() -> None:
    assert commands()[:2] == ["make demo", "make test"]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(r"^demo:", makefile, re.MULTILINE)
    assert re.search(r"^test:", makefile, re.MULTILINE)
    assert (ROOT / ".ci" / "run").read_text(encoding="utf-8").rstrip().endswith("make test")


def test_commands_run_as_they_stand(tmp_path: Path) -> None:
    (tmp_path / "clinic.csv").write_text(CLINIC)
    circuit = next(block for block in blocks("python") if "my_circuit.py" in block)
    (tmp_path / "my_circuit.py").write_text(circuit)
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    ran = [command for command in commands() if command.startswith("qfed ")]
    assert len(ran) >= 7
    for command in ran:
        done = subprocess.run(
            ["bash", "-ec", command], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    assert (tmp_path / "runs" / "first" / "report.html").stat().st_size > 10_000
    program = next(block for block in blocks("python") if "qfed.simulate" in block)
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    score, epsilon = map(float, done.stdout.split())
    assert 0 < score <= 1
    assert 0 < epsilon <= 3


def test_the_clinic_of_the_readme_runs(tmp_path: Path) -> None:
    (tmp_path / "clinic.csv").write_text(CLINIC)
    section = next(block for block in blocks("toml") if "clinic.csv" in block)
    (tmp_path / "clinic.toml").write_text(section + "\n[federation]\nsites = 3\n[training]\nrounds = 2\n")
    done = subprocess.run(
        [BIN / "qfed", "simulate", "clinic.toml", "--quiet", "--set", "simulation.compare=[]", "--out", "out"],
        cwd=tmp_path, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert all(name in (tmp_path / "out" / "report.html").read_text() for name in ("north", "south", "west"))


def test_tables_are_those_of_the_recorded_results() -> None:
    done = subprocess.run(
        [sys.executable, "tests/bench/redraw.py", "--check"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_every_linked_file_is_there() -> None:
    for target in re.findall(r"\]\((?!https?://)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
