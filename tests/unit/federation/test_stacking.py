"""The in-process engine trains a round's sites in one call, with the guarantees that each has alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_runs import RUN, Lab, charges, kind_of, small

from qfed._flower import Context, Message
from qfed.federation import wire
from qfed.federation.engine import InProcessGrid
from qfed.federation.local import Learner
from qfed.simulation.arms import CLIENT_APP, PREPARE_ROUND, component
from qfed_client.app import close_sites
from qfed_server.rounds import run_rounds


@pytest.fixture(autouse=True)
def _closed():  # type: ignore[no-untyped-def]
    yield
    close_sites()


def stacked(lab: Lab, kind: type[InProcessGrid] = InProcessGrid, fails=None) -> InProcessGrid:  # type: ignore[no-untyped-def]
    warm = {"qfed-sites": str(lab.sites), "qfed-warm": "yes"}
    return kind(component(CLIENT_APP), lab.config.federation.sites, warm, fails, component(PREPARE_ROUND))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Whose rounds each call of `train_many` trained."""
    seen: list[list[str]] = []
    original = Learner.train_many

    def watched(self, jobs):  # type: ignore[no-untyped-def]
        seen.append([job.dataset for job in jobs])
        return original(self, jobs)

    monkeypatch.setattr(Learner, "train_many", watched)
    return seen


@pytest.mark.parametrize("secagg", ["on", "off"])
@pytest.mark.parametrize("kind", ["twin", "hybrid"])
def test_without_privacy_the_run_is_the_one_without_stacking(
    tmp_path: Path, kind: str, secagg: str, calls: list[list[str]]
) -> None:
    changes = ("privacy.mode=off", f"model.kind={kind}", f"secagg.mode={secagg}")
    one, other = Lab(tmp_path / "stacked", small(*changes)), Lab(tmp_path / "alone", small(*changes))
    run_rounds(stacked(one), one.folder)
    assert [len(call) for call in calls] == [5, 5], "each round is one call"
    calls.clear()
    run_rounds(other.grid(), other.folder)
    assert [len(call) for call in calls] == [1] * 10
    a, b = one.folder.checkpoint(), other.folder.checkpoint()
    assert a.status == b.status == "completed"
    assert np.allclose(a.vector, b.vector, atol=1e-5)
    assert not np.allclose(a.vector, one.learner.start, atol=1e-3)
    assert a.traffic == b.traffic


def test_with_privacy_each_site_is_charged_once_a_round(tmp_path: Path, calls: list[list[str]]) -> None:
    lab = Lab(tmp_path, small())
    run_rounds(stacked(lab), lab.folder)
    assert lab.folder.checkpoint().status == "completed"
    assert [sorted(call) for call in calls] == [sorted(lab.keys.names)] * 2
    rows = [charges(lab.site(k) / "ledger.db") for k in range(5)]
    alone = Lab(tmp_path / "alone", small())
    run_rounds(alone.grid(), alone.folder)
    plain = [charges(alone.site(k) / "ledger.db") for k in range(5)]
    for mine, other in zip(rows, plain, strict=True):
        assert [row["round"] for row in mine] == [1, 2]
        for a, b in zip(mine, other, strict=True):
            same = ("sampling_rate", "noise_multiplier", "steps", "planned_rounds", "kind", "run")
            assert {key: a[key] for key in same} == {key: b[key] for key in same}


class Twice(InProcessGrid):
    """Delivers every request for a contribution twice."""

    pairs: list[tuple[Message, Message]]

    def _deliver(self, message: Message) -> Message:
        reply = super()._deliver(message)
        if message.metadata.message_type == wire.TRAIN:
            self.pairs = [*getattr(self, "pairs", []), (reply, super()._deliver(message))]
        return reply


def test_a_message_that_comes_again_gets_the_same_bytes(tmp_path: Path, calls: list[list[str]]) -> None:
    lab = Lab(tmp_path, small())
    grid = stacked(lab, Twice)
    run_rounds(grid, lab.folder)
    assert len(grid.pairs) == 10
    for first, second in grid.pairs:
        upload = {"body": bytes, "head": bytes, "spent": str}
        assert wire.unpack(first, **upload) == wire.unpack(second, **upload)
    assert [len(call) for call in calls] == [5, 5]


def test_a_site_that_the_message_does_not_reach_is_not_charged(tmp_path: Path, calls: list[list[str]]) -> None:
    lab = Lab(tmp_path, small())
    asked: list[tuple[int, str, str]] = []

    def fails(index: int, message: Message) -> bool:
        asked.append((index, *kind_of(message)))
        return index == 2 and kind_of(message) == (wire.TRAIN, "1")

    run_rounds(stacked(lab, fails=fails), lab.folder)
    assert lab.folder.checkpoint().status == "completed"
    assert [len(call) for call in calls] == [4, 5]
    assert [row["round"] for row in charges(lab.site(2) / "ledger.db")] == [2]
    trained = [one for one in asked if one[1] == wire.TRAIN]
    assert len(trained) == len(set(trained)) == 10, "each message meets the failures once"


def test_a_site_that_fails_is_left_out_and_answers_for_itself(tmp_path: Path, calls: list[list[str]]) -> None:
    lab = Lab(tmp_path, small("secagg.mode=off"))
    (lab.site(1) / "records.npz").unlink()
    grid = stacked(lab)
    nodes = list(grid.get_node_ids())
    from qfed.config import to_toml

    joins = [
        Message(wire.pack({"run": RUN, "config": to_toml(lab.config), "receipt": b""}), node, wire.JOIN)
        for node in nodes
    ]
    assert not any(reply.has_error() for reply in grid.send_and_receive(joins))
    model = wire.vector_to_bytes(lab.learner.start)
    bad = {"run": RUN, "round": 1, "model": model[:-4], "request": b"", "witness": b""}
    good = {"run": RUN, "round": 1, "model": model, "request": b"", "witness": b""}
    messages = [Message(wire.pack(bad if k == 0 else good), node, wire.TRAIN) for k, node in enumerate(nodes)]
    replies = list(grid.send_and_receive(messages))
    assert [reply.error.reason if reply.has_error() else "" for reply in replies] == [
        "RemoteProtocolError", "DataError", "", "", "",
    ]  # fmt: skip
    assert [len(call) for call in calls] == [4]
    assert charges(lab.site(0) / "ledger.db") == []
    assert len(charges(lab.site(1) / "ledger.db")) == 1, "it was charged, and cut off"


def test_nothing_is_prepared_for_sites_that_are_not_kept_open(tmp_path: Path, calls: list[list[str]]) -> None:
    lab = Lab(tmp_path, small("privacy.mode=off", "secagg.mode=off"))
    shown: list[int] = []

    def prepare(deliveries: list[tuple[Message, Context]]) -> None:
        shown.append(len(deliveries))
        component(PREPARE_ROUND)(deliveries)

    cold = InProcessGrid(component(CLIENT_APP), 5, {"qfed-sites": str(lab.sites)}, None, prepare)  # type: ignore[arg-type]
    run_rounds(cold, lab.folder)
    assert shown == [5, 5]
    assert [len(call) for call in calls] == [1] * 10
