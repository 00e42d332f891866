"""The aggregator's rounds when sites fail: what is aggregated, what is reported, when it ends."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_runs import RUN, Lab, federated_average, kind_of, small

from qfed._flower import Message
from qfed.errors import QuorumLost, StateError
from qfed.federation import wire
from qfed.federation.engine import InProcessGrid
from qfed.federation.result import Score
from qfed.federation.runfolder import Checkpoint, RunFolder
from qfed.simulation import simulate
from qfed.simulation.arms import pooled
from qfed_server.rounds import quorum_of, run_rounds

OFF = ("privacy.mode=off",)
GRID_STEP = 4.0 / 2**18
"""Coarser than the quantisation step of an update in these runs."""


def failing(*failures: str) -> str:
    return f"simulation.failures=[{','.join('{' + failure + '}' for failure in failures)}]"


def lab_of(path: Path, *changes: str) -> Lab:
    return Lab(path, small(*OFF, *changes))


def run(lab: Lab, fails: object = None, kind: type[InProcessGrid] = InProcessGrid) -> Checkpoint:
    grid = lab.grid(kind)
    grid._fails = fails  # type: ignore[assignment]
    run_rounds(grid, lab.folder)
    return lab.folder.checkpoint()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Lab, Checkpoint]:
    """A run in which nobody fails."""
    lab = lab_of(tmp_path_factory.mktemp("whole"))
    return lab, run(lab)


def test_the_model_is_the_federated_average(whole: tuple[Lab, Checkpoint]) -> None:
    lab, state = whole
    first = federated_average(lab, lab.learner.start, 1, range(5))
    second = federated_average(lab, first, 2, range(5))
    np.testing.assert_allclose(state.vector, second, atol=2 * GRID_STEP)
    assert np.abs(state.vector - lab.learner.start).max() > 100 * GRID_STEP, "the comparison must be able to fail"


def test_scores_are_those_of_the_pooled_held_out_records(whole: tuple[Lab, Checkpoint]) -> None:
    lab, state = whole
    sums = [lab.learner.evaluate(state.vector, site.test) for site in lab.data]
    assert state.final is not None
    assert state.final.score == sum(s.score for s in sums) / sum(s.records for s in sums)
    assert state.final.loss == pytest.approx(sum(s.loss for s in sums) / sum(s.records for s in sums), abs=1e-3)
    assert state.rounds[-1].metrics == state.final
    assert state.initial is not None
    assert state.status == "completed"


def test_uniform_weights_are_one_each(tmp_path: Path) -> None:
    lab = lab_of(tmp_path, "federation.weighting=uniform", "training.rounds=1", "federation.server_learning_rate=0.5")
    updates = [
        lab.learner.train(lab.learner.start, lambda s=s: s.train, ledger=None, dataset=name, run=RUN, round=1)
        for s, name in zip(lab.data, lab.keys.names, strict=True)
    ]
    expected = lab.learner.start + 0.5 * np.mean(updates, axis=0)
    np.testing.assert_allclose(run(lab).vector, expected, atol=GRID_STEP)


@pytest.mark.parametrize("secagg", ["on", "off"])
def test_a_site_that_fails_to_train_is_named_and_left_out(
    tmp_path: Path, whole: tuple[Lab, Checkpoint], secagg: str
) -> None:
    result = simulate(small(*OFF, f"secagg.mode={secagg}", failing("site=2,round=2")), out=tmp_path / "out")
    first, second = result.rounds
    assert (first.status, first.survivors, first.dropouts) == ("aggregated", 5, ())
    assert (second.status, second.survivors) == ("aggregated", 4)
    assert [(dropout.site, dropout.reason) for dropout in second.dropouts] == [("site-2", "site unreachable")]
    assert [site.rounds for site in result.sites] == [2, 2, 1, 2, 2]
    assert result.status == "completed"
    lab, _ = whole
    model = np.concatenate([p.ravel() for p in np.load(tmp_path / "out" / "model.npz").values()])
    others = federated_average(lab, federated_average(lab, lab.learner.start, 1, range(5)), 2, [0, 1, 3, 4])
    everyone = federated_average(lab, federated_average(lab, lab.learner.start, 1, range(5)), 2, range(5))
    assert near(model, others)
    assert not near(model, everyone), "the comparison must be able to fail"


def near(stored: np.ndarray, vector: np.ndarray) -> bool:
    """Whether every value of `vector` is among the stored ones (which also hold probe outputs), to rounding."""
    return all(np.abs(stored - value).min() < 2 * GRID_STEP for value in vector)


def test_a_site_that_vanishes_after_its_upload_is_recovered_from(whole: tuple[Lab, Checkpoint], tmp_path: Path) -> None:
    lab = lab_of(tmp_path)
    uploaded = False

    def vanish(index: int, message: Message) -> bool:
        nonlocal uploaded
        kind, round = kind_of(message)
        if round != "1":
            return False
        uploaded = uploaded or kind == wire.TRAIN
        return index == 3 and uploaded and kind != wire.TRAIN

    state = run(lab, vanish)
    # What it uploaded counts, so the model is that of the run in which nobody failed, to the last bit.
    assert np.array_equal(state.vector, whole[1].vector)
    assert state.rounds[0].survivors == 5
    assert state.rounds[0].bytes["recovery"] > 0
    assert "recovery" not in state.rounds[1].bytes
    assert state.status == "completed"


@pytest.mark.slow
def test_a_train_failure_and_a_vanished_member_in_one_round(tmp_path: Path) -> None:
    """Both count against the recoverable drops: one of five sites is too few, two of seven are enough."""
    failures = failing("site=0,round=1", 'site=1,round=1,phase="unmask"')
    few = simulate(small(*OFF, failures)).rounds
    assert [(record.status, record.survivors) for record in few] == [("failed", 0), ("aggregated", 5)]
    reasons = {dropout.site: dropout.reason for dropout in few[0].dropouts}
    assert {"site-0", "site-1"} == set(reasons)
    assert "at most 1 more members" in str(few[0].failure)
    more = ("federation.sites=7", "federation.quorum=0.7", "secagg.recoverable_drops=2")
    enough = simulate(small(*OFF, failures, *more)).rounds
    assert [(record.status, record.survivors) for record in enough] == [("aggregated", 6), ("aggregated", 7)]
    assert [dropout.site for dropout in enough[0].dropouts] == ["site-0"]


def test_a_failed_round_keeps_the_model_and_the_run_goes_on(tmp_path: Path) -> None:
    lab = lab_of(tmp_path, "training.rounds=3")
    state = run(lab, lambda index, message: index < 2 and kind_of(message) == (wire.TRAIN, "2"))
    assert [record.status for record in state.rounds] == ["aggregated", "failed", "aggregated"]
    assert state.rounds[1].survivors == 0
    assert {"site-0", "site-1"} <= {dropout.site for dropout in state.rounds[1].dropouts}
    assert state.status == "completed"
    after_first = federated_average(lab, lab.learner.start, 1, range(5))
    assert state.rounds[1].metrics == state.rounds[0].metrics, "the model stayed, and so does its score"
    assert state.rounds[0].metrics is not None
    expected = pooled(lab.learner, after_first, lab.data)
    assert state.rounds[0].metrics.score == expected.score
    assert state.rounds[0].metrics.loss == pytest.approx(expected.loss, abs=1e-3)
    np.testing.assert_allclose(state.vector, federated_average(lab, after_first, 3, range(5)), atol=3 * GRID_STEP)
    assert state.taken_part == dict.fromkeys(lab.keys.names, 2)


@pytest.mark.parametrize("secagg", ["on", "off"])
def test_too_many_failed_rounds_stop_the_run_with_the_last_good_model(tmp_path: Path, secagg: str) -> None:
    failures = [f"site={site},round={round}" for site in (0, 1) for round in (2, 3, 4)]
    changes = ("training.rounds=4", "federation.max_failed_rounds=1", f"secagg.mode={secagg}")
    result = simulate(small(*OFF, *changes, failing(*failures)), out=tmp_path / "out")
    assert result.status == "stopped"
    assert [record.status for record in result.rounds] == ["aggregated", "failed", "failed"]
    assert all(record.metrics is None for record in result.rounds), "no later round told how good the last model is"
    lab = lab_of(tmp_path / "lab")
    expected = federated_average(lab, lab.learner.start, 1, range(5))
    stored = np.concatenate([p.ravel() for p in np.load(tmp_path / "out" / "model.npz").values()])
    assert near(stored, expected)
    assert not near(stored, lab.learner.start)
    assert result.initial is not None
    assert result.final.score == pooled(lab.learner, expected, lab.data).score, "the score is of the model that is kept"
    assert result.final.loss < result.initial.loss


def test_a_run_in_which_nothing_worked_is_an_error(tmp_path: Path) -> None:
    failures = [f"site={site},round={round}" for site in (0, 1) for round in (1, 2)]
    with pytest.raises(QuorumLost, match=r"all 1 rounds failed.*site-0: site unreachable"):
        simulate(small(*OFF, "federation.max_failed_rounds=0", failing(*failures)), out=tmp_path / "out")
    assert (tmp_path / "out" / "INCOMPLETE").exists()
    assert not (tmp_path / "out" / "result.json").exists()


def test_the_first_score_is_the_initial_models_even_when_round_one_failed(tmp_path: Path) -> None:
    lab = lab_of(tmp_path)
    state = run(lab, lambda index, message: index < 2 and kind_of(message) == (wire.TRAIN, "1"))
    assert state.initial is not None
    assert state.initial.score == pooled(lab.learner, lab.learner.start, lab.data).score
    assert state.rounds[0].metrics == state.initial


def test_too_few_that_join_are_named_with_their_reasons(tmp_path: Path) -> None:
    lab = lab_of(tmp_path)
    with pytest.raises(QuorumLost, match=r"3 of 5 sites joined, but the quorum is 4.*site unreachable"):
        run(lab, lambda index, message: message.metadata.message_type == wire.JOIN and index > 2)
    assert lab.folder.checkpoint().round == 0


def test_a_site_that_did_not_join_is_reported_in_every_round(tmp_path: Path) -> None:
    state = run(lab_of(tmp_path), lambda index, message: index == 4)
    assert [record.survivors for record in state.rounds] == [4, 4]
    for record in state.rounds:
        assert [dropout.reason for dropout in record.dropouts] == ["site unreachable"]
    assert state.status == "completed"


class Silent(InProcessGrid):
    """The site with the last partition never answers a TRAIN message."""

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return super().pull_messages([name for name in message_ids if not self._never(name)])

    def _never(self, name: str) -> bool:
        message = self._waiting.get(name)
        if message is None:
            return False
        last = self._contexts[message.metadata.dst_node_id].node_config["partition-id"] == 4
        return last and kind_of(message) == (wire.TRAIN, "1")


def test_a_site_that_never_answers_costs_a_deadline_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that only sleeping moves, so a slow machine is never late."""
    now = [0.0]
    monkeypatch.setattr("qfed_server.exchange.time.monotonic", lambda: now[0])
    monkeypatch.setattr("qfed_server.exchange.time.sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    state = run(lab_of(tmp_path, "federation.deadline=50"), kind=Silent)
    assert [(d.site, d.reason) for d in state.rounds[0].dropouts] == [("site-4", "no answer within 50 s")]
    assert state.rounds[0].survivors == 4
    assert state.rounds[1].survivors == 5
    assert 50 <= now[0] < 52, "one deadline, with pauses between polls short beside it"


def test_every_round_ends_in_a_readable_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = lab_of(tmp_path)
    seen: list[Checkpoint] = []
    original = RunFolder.save

    def save(self: RunFolder, state: Checkpoint) -> None:
        original(self, state)
        read = RunFolder(self.path).checkpoint()
        assert np.array_equal(read.vector, state.vector)
        assert np.array_equal(read.tail, state.tail)  # type: ignore[arg-type]
        assert replace(read, vector=state.vector, tail=state.tail) == state
        seen.append(read)

    monkeypatch.setattr(RunFolder, "save", save)
    run(lab)
    assert [state.round for state in seen] == [1, 2, 2]
    assert [state.status for state in seen] == ["running", "running", "completed"]
    assert [path.name for path in sorted(lab.folder.path.iterdir())] == [
        "checkpoint.npz", "config.toml", "federation.json", "run.json",
    ]  # fmt: skip


def test_a_crash_while_saving_keeps_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder.create(tmp_path / "run", "r", small(), np.arange(3, dtype=np.float32), "accuracy", 1.0)

    def crash(*_: object) -> None:
        raise OSError("power gone")

    monkeypatch.setattr("qfed.federation.files.os.replace", crash)
    with pytest.raises(OSError, match="power gone"):
        folder.save(Checkpoint(np.zeros(3, np.float32), round=1, final=Score(score=1, loss=0, records=1)))
    assert np.array_equal(folder.checkpoint().vector, [0, 1, 2])
    assert folder.checkpoint().round == 0


def test_a_damaged_checkpoint_is_told(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", "r", small(), np.arange(3, dtype=np.float32), "accuracy", 1.0)
    file = folder.path / "checkpoint.npz"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(StateError, match="start the run anew"):
        folder.checkpoint()


class Stopped(Exception):
    """The aggregator's process ends."""


class Stops(InProcessGrid):
    """Ends the aggregator when it sends the third round."""

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        messages = list(messages)
        if any(kind_of(message)[1] == "3" for message in messages):
            raise Stopped
        return super().push_messages(messages)


@pytest.mark.parametrize(
    ("secagg", "strategy"),
    [("on", "fedavg"), ("off", "fedavg"), ("on", "fedadam"), ("off", "fedavgm"), ("off", "fedyogi")],
)
def test_an_aggregator_that_starts_again_goes_on_from_its_checkpoint(
    tmp_path: Path, secagg: str, strategy: str
) -> None:
    """Also with a server optimiser: what it carries from round to round is in the checkpoint."""
    changes = ("training.rounds=4", f"secagg.mode={secagg}", f"federation.strategy={strategy}")
    lab = lab_of(tmp_path, *changes)
    with pytest.raises(Stopped):
        run(lab, kind=Stops)
    before = lab.folder.checkpoint()
    assert (before.round, before.status) == (2, "running")
    state = run(lab)
    assert [(record.round, record.status) for record in state.rounds] == [(r, "aggregated") for r in (1, 2, 3, 4)]
    assert state.status == "completed"
    whole = run(lab_of(tmp_path / "whole", *changes))
    assert np.array_equal(state.vector, whole.vector)
    assert set(before.optimizer) == {"fedavg": set(), "fedavgm": {"v"}}.get(strategy, {"m", "v"})
    for name, moment in state.optimizer.items():
        assert np.array_equal(moment, whole.optimizer[name])
        assert not np.array_equal(moment, before.optimizer[name])
    assert state.final == whole.final


@pytest.mark.parametrize(
    ("sites", "quorum", "secagg", "needed"), [(4, 0.75, "on", 4), (4, 0.75, "off", 3), (5, 0.8, "on", 4)]
)
def test_a_round_waits_for_as_many_sites_as_can_open_its_sum(
    tmp_path: Path, sites: int, quorum: float, secagg: str, needed: int
) -> None:
    """Keys for fewer sites than the committee's threshold cannot be made: such a round would only fail."""
    changes = (f"federation.sites={sites}", f"federation.quorum={quorum}", f"secagg.mode={secagg}")
    assert quorum_of(Lab(tmp_path, small("privacy.mode=off", *changes)).folder) == needed
