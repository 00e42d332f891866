"""Ctrl-C: one line, exit status 130, a folder that says that it is no result, and --force starts over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

QFED = Path(sys.executable).parent / "qfed"
CHANGES = ("data.source=wine", "model.kind=twin", "model.wires=2", "federation.sites=3", "simulation.compare=[]")
PATIENCE = 200.0


def command(out: Path, rounds: int) -> list[str]:
    changes = [part for change in (*CHANGES, f"training.rounds={rounds}") for part in ("--set", change)]
    return [str(QFED), "simulate", *changes, "--out", str(out)]


def interrupted(out: Path, path: Path) -> tuple[int, str]:
    """Exit status and output of a simulation that gets SIGINT, as a terminal sends it, as soon as `path` exists."""
    process = subprocess.Popen(
        command(out, 5000),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # as in a terminal, also where this runs in the background of a shell, which makes its children ignore SIGINT
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    try:
        end = time.monotonic() + PATIENCE
        while not path.exists() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
        assert path.exists(), process.communicate()[0] if process.poll() is not None else "it never began"
        os.killpg(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=PATIENCE)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    return process.returncode, output


# As soon as there is a folder, and in the middle of the rounds.
@pytest.mark.parametrize("moment", ["INCOMPLETE", "work/main/sites/0000/secagg.db"])
def test_ctrl_c_leaves_a_folder_that_is_clearly_incomplete(tmp_path: Path, moment: str) -> None:
    out = tmp_path / "out"
    status, output = interrupted(out, out / moment)
    assert status == 130, output
    assert "Traceback" not in output
    assert "interrupted" in output
    assert (out / "INCOMPLETE").exists()
    for name in ("result.json", "model.npz", "report.html"):
        assert not (out / name).exists()

    refused = subprocess.run(command(out, 1), capture_output=True, text=True, timeout=PATIENCE)
    assert refused.returncode == 2
    assert "--force" in refused.stderr
    assert (out / "INCOMPLETE").exists()

    again = subprocess.run([*command(out, 1), "--force"], capture_output=True, text=True, timeout=PATIENCE)
    assert again.returncode == 0, again.stderr
    assert not (out / "INCOMPLETE").exists()
    assert not (out / "work").exists()
    assert (out / "result.json").exists()
