"""A server killed at any moment of a run: it goes on by itself, to the same model, and no site is charged twice."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from deployed import OPEN, Deployment
from small_runs import charges

from qfed.federation.runfolder import Checkpoint, RunFolder
from qfed.report import read_result

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

ROUNDS = 4


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A server and three agents that stay for all tests here; runs with and without privacy have the same terms."""
    changes = (f"training.rounds={ROUNDS}", "federation.weighting=uniform")
    with Deployment(tmp_path_factory.mktemp("resume"), *changes, private=False) as lab:
        lab.start_server()
        lab.start_sites()
        yield lab


def checkpoint(lab: Deployment, run: str) -> Checkpoint:
    return RunFolder(lab.run_folder(run)).checkpoint()


def test_the_model_is_that_of_the_run_that_nobody_killed(lab: Deployment) -> None:
    whole = lab.submit(*OPEN)
    assert lab.wait(whole) == "completed"
    killed = lab.submit(*OPEN)
    # While the sites train: they are asked again under the same label, and send what they have.
    lab.kill_server_when("uploads", lambda: lab.memory(killed)["first_round"] is not None)
    # After the survivors were fixed, while the members open their masks.
    lab.kill_server_when("unmask", lambda: (lab.memory(killed)["fixed"] or [0])[0] >= 2)
    # Right after a checkpoint.
    lab.kill_server_when("round 3", lambda: len(lab.events(killed, "round")) >= 3)
    assert lab.wait(killed) == "completed"
    one, other = checkpoint(lab, whole), checkpoint(lab, killed)
    assert np.array_equal(one.vector, other.vector)
    assert one.final == other.final
    assert [(r.round, r.status, r.survivors, r.metrics) for r in other.rounds] == [
        (r.round, "aggregated", 3, r.metrics) for r in one.rounds
    ]
    assert len(lab.events(killed, "resumed")) >= 2
    rounds = [event["round"] for event in lab.events(killed, "round")]
    assert sorted(set(rounds)) == [1, 2, 3, 4], "every round is told"
    assert not np.array_equal(one.vector, np.zeros_like(one.vector))


def test_a_private_round_that_was_cut_off_is_the_same_release_on_the_same_charge(lab: Deployment) -> None:
    """Mode shared: a second answer under a new label would be a second release; under the old one it is the same."""
    before = {name: len(charges(lab.site(name) / "ledger.db")) for name in lab.names}
    run = lab.submit("privacy.mode=shared")
    # Where Flower keeps its connections is no matter: the killed server goes on with nothing of them.
    settings = lab.data / "server.toml"
    settings.write_text(settings.read_text().replace('connections = "disk"', 'connections = "memory"'))
    lab.kill_server_when("uploads of round 1", lambda: lab.memory(run)["first_round"] is not None)
    lab.kill_server_when("unmask of round 2", lambda: (lab.memory(run)["fixed"] or [0])[0] >= 2)
    lab.kill_server_when("unmask of round 3", lambda: (lab.memory(run)["fixed"] or [0])[0] >= 3)
    assert lab.wait(run) == "completed"
    state = checkpoint(lab, run)
    assert [(record.round, record.status, record.survivors) for record in state.rounds] == [
        (round, "aggregated", 3) for round in range(1, ROUNDS + 1)
    ]
    for name in lab.names:
        mine = charges(lab.site(name) / "ledger.db")[before[name] :]
        assert [row["round"] for row in mine if row["run"] == run] == list(range(1, ROUNDS + 1))
    result = read_result(lab.run_folder(run))
    assert result.privacy.epsilon is not None
    assert result.privacy.epsilon <= result.config.privacy.epsilon * (1 + 1e-9), "the plan holds, kills or not"


def test_a_clean_stop_of_the_server_goes_on_as_well(lab: Deployment) -> None:
    import signal

    run = lab.submit(*OPEN)
    lab.wait_for(run, "round")
    assert lab.kill("server", signal.SIGTERM) == 0
    assert not (lab.data / "control.sock").exists()
    lab.start_server()
    assert lab.wait(run) == "completed"
    assert lab.state(run)["why"] is None
