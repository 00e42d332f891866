"""A round of groups that was cut off when masks were to be opened goes on in the groups that were drawn."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from small_runs import Lab, kind_of, small

from qfed._flower import Message
from qfed.federation.engine import InProcessGrid
from qfed.federation.runfolder import Checkpoint
from qfed_server.memory import EpochMemory
from qfed_server.rounds import run_rounds

EQUAL = ("federation.sites=6", "federation.groups=2", "federation.strategy=trimmed_mean", "federation.byzantine=0",
         "federation.weighting=uniform", "privacy.mode=off", "training.local_steps=1")  # fmt: skip
"""A mean of equal groups' means does not depend on who is in which: models can be compared bit by bit."""


class Cut(Exception):
    """The aggregator's process ended here."""


class CutOff(InProcessGrid):
    """Ends the aggregator once, when the survivors of round 2 are fixed."""

    place: Path
    done = False

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """See Grid."""
        asked = list(messages)
        unmask = bool(asked) and kind_of(asked[0])[0].endswith("secagg")
        if unmask and not self.done and EpochMemory(self.place).survivors(2):
            self.done = True
            raise Cut
        return super().push_messages(asked)


def test_the_same_groups_go_on_to_the_same_model(tmp_path: Path) -> None:
    ends: list[Checkpoint] = []
    for cut in (False, True):
        lab = Lab(tmp_path / str(cut), small(*EQUAL))
        grid = lab.grid(CutOff)
        assert isinstance(grid, CutOff)
        grid.place, grid.done = lab.folder.path, not cut
        try:
            run_rounds(grid, lab.folder, memory=EpochMemory(lab.folder.path))
        except Cut:
            assert lab.folder.checkpoint().round == 1
            run_rounds(grid, lab.folder, memory=EpochMemory(lab.folder.path))
        assert grid.done
        assert EpochMemory(lab.folder.path).begin(1) == 2, "one epoch was begun, so one draw"
        ends.append(lab.folder.checkpoint())
    assert [(record.status, record.survivors) for record in ends[1].rounds] == [("aggregated", 6)] * 2
    assert np.array_equal(ends[0].vector, ends[1].vector)
