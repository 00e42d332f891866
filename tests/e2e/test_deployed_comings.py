"""Sites that come late, leave and come back in the middle of a run; groups whose server is killed."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest
from deployed import OPEN, Deployment, until
from small_runs import charges

from qfed.federation.local import learner_for
from qfed.federation.result import RoundRecord
from qfed.federation.runfolder import RunFolder

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

LATE = "site-4"


def present(lab: Deployment, record: RoundRecord) -> set[str]:
    """Who is in a round's sum; whoever was not there when the round's epoch began is no dropout of it."""
    names = set(lab.names) - {dropout.site for dropout in record.dropouts}
    if len(names) > record.survivors:
        names.discard(LATE)
    assert len(names) == record.survivors
    return names


def survivors(lab: Deployment, run: str) -> list[int]:
    return [event["survivors"] for event in lab.events(run, "round")]


def averaged(lab: Deployment, run: str) -> np.ndarray:
    """The model that a plain mean over those who were there comes to round by round, without encoding and masks."""
    folder = RunFolder(lab.run_folder(run))
    learner = learner_for(folder.config)
    vector = learner.start
    for record in folder.checkpoint().rounds:
        total, weight = np.zeros(len(vector)), 0
        for name in sorted(present(lab, record)):
            train = lab.records[lab.names.index(name)].train
            update = learner.train(
                vector, lambda train=train: train, ledger=None, dataset=name, run=run, round=record.round
            )
            total, weight = total + update, weight + 1
        vector = (vector + total / weight).astype(np.float32)
    return vector


def test_a_site_that_comes_late_and_one_that_leaves_and_returns(tmp_path: Path) -> None:
    terms = ("secagg.epoch_rounds=2", "training.rounds=60", "federation.weighting=uniform")
    with Deployment(tmp_path, *terms, sites=5, private=False, settings={"patience": 0.5}) as lab:
        lab.start_server()
        lab.start_sites(*(set(lab.names) - {LATE}))
        run = lab.submit("privacy.mode=shared")
        lab.wait_for(run, "round", 1)
        lab.start_sites(LATE)
        until("a round with the late one", lambda: 5 in survivors(lab, run))
        assert lab.kill("site-1", signal.SIGTERM) == 0
        since = len(survivors(lab, run))
        until("two rounds without site-1", lambda: survivors(lab, run)[since:].count(4) >= 2)
        since = len(survivors(lab, run))
        lab.start_sites("site-1")
        until("a round with it again", lambda: 5 in survivors(lab, run)[since:])
        lab.qfed("stop", run, "--data", lab.data)
        assert lab.wait(run) == "stopped"
        records = RunFolder(lab.run_folder(run)).checkpoint().rounds
        assert {record.status for record in records} == {"aggregated"}
        for name in lab.names:
            charged = [row["round"] for row in charges(lab.site(name) / "ledger.db")]
            took_part = {record.round for record in records if name in present(lab, record)}
            assert len(charged) == len(set(charged)), "no round twice"
            assert took_part <= set(charged), "nothing without a charge"
            # Charged and not in the sum: the round that was stopped, or the one that it left in.
            assert len(set(charged) - took_part) <= 2, (name, charged, took_part)
            assert (1 in charged) == (name != LATE)

        # Without privacy the model can be told: it is the mean over those who were there, round by round.
        assert lab.kill(LATE, signal.SIGTERM) == 0
        run = lab.submit(*OPEN, "training.rounds=10")
        lab.wait_for(run, "round", 1)
        lab.start_sites(LATE)
        assert lab.wait(run) == "completed"
        assert survivors(lab, run)[0] == 4
        found = RunFolder(lab.run_folder(run)).checkpoint().vector
        assert np.allclose(found, averaged(lab, run), atol=2e-3)
        assert not np.allclose(found, learner_for(lab.config).start, atol=2e-2)


def test_groups_go_on_as_they_were_drawn_when_the_server_is_killed(tmp_path: Path) -> None:
    """A mean of equal groups' means does not depend on who is in which, so the model can be compared bit by bit."""
    terms = ("federation.strategy=trimmed_mean", "federation.byzantine=0", "federation.groups=2", "training.rounds=3",
             "federation.weighting=uniform")  # fmt: skip
    with Deployment(tmp_path, *OPEN, *terms, sites=6, private=False) as lab:
        lab.start_server()
        lab.start_sites()
        whole = lab.submit()
        assert lab.wait(whole) == "completed"
        run = lab.submit()
        lab.kill_server_when("uploads", lambda: lab.memory(run)["first_round"] is not None)
        lab.kill_server_when("the masks of round 2", lambda: (lab.memory(run)["fixed"] or [0])[0] >= 2)
        assert lab.wait(run) == "completed"
        one, other = (RunFolder(lab.run_folder(name)).checkpoint() for name in (whole, run))
        assert [(record.status, record.survivors) for record in other.rounds] == [("aggregated", 6)] * 3
        assert lab.memory(run)["last"] == 1, "no other groups were drawn"
        assert len(lab.events(run, "resumed")) >= 2
        assert np.array_equal(one.vector, other.vector)
