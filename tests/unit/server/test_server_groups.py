"""Groups summed one by one: who is with whom, what is opened, what withstands a poisoned site, what fails alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_runs import Lab, kind_of, small

from qfed.federation import wire
from qfed.federation.runfolder import Checkpoint
from qfed.secagg import ServerRound
from qfed_server.rounds import run_rounds

OFF = ("privacy.mode=off", "simulation.compare=[]")
TWELVE = (*OFF, "federation.sites=12", "federation.groups=4", "federation.strategy=median", "training.batch_size=12")


def run(lab: Lab, fails: object = None) -> Checkpoint:
    grid = lab.grid()
    grid._fails = fails  # type: ignore[assignment]
    run_rounds(grid, lab.folder)
    return lab.folder.checkpoint()


def test_a_run(tmp_path: Path) -> None:
    lab = Lab(tmp_path, small(*TWELVE))
    state = run(lab)
    for r in state.rounds:
        print(r)
    assert 0
