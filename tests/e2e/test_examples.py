"""The examples for D-Wave and Rigetti run on simulators as their README says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e

EXAMPLES = Path(__file__).parents[2] / "deployments" / "examples"
BIN = Path(sys.executable).parent


@pytest.mark.timeout(900)
@pytest.mark.parametrize("vendor", ["dwave", "rigetti"])
def test_an_example_runs_as_it_stands(tmp_path: Path, vendor: str) -> None:
    place = shutil.copytree(EXAMPLES / vendor, tmp_path / vendor)
    text = (place / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"^    (qfed .*)$", text, flags=re.MULTILINE)
    assert [command.split()[1] for command in commands] == ["simulate", "synth", "synth", "synth"]
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    for command in commands[:-1]:  # the last one's own tests are in tests/unit/synth
        done = subprocess.run(
            command.split(), cwd=place, env=environment, capture_output=True, text=True, timeout=280, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    rows = (place / "synthetic.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 1001
    assert "Private counts: epsilon 3" in done.stdout


@pytest.mark.parametrize(
    ("vendor", "change"), [("dwave", "synth.sampler=qpu"), ("rigetti", "synth.born.backend=braket")]
)
def test_the_line_to_change_is_there(vendor: str, change: str) -> None:
    from qfed.config import load_config

    file = EXAMPLES / vendor / "config.toml"
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if "THE LINE TO CHANGE" in line]
    assert len(lines) == 1
    key, _, value = change.rpartition("=")
    assert re.match(rf'{key.rpartition(".")[2]} = "', lines[0])
    assert f'"{value}"' in lines[0].partition("#")[2]
    assert load_config(file, [change]).kind == "synthesize"
