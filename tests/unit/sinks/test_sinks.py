"""Figures in TensorBoard and MLflow: each once, in order, also over restarts; read back with their own readers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from dashboard_desk import NOW, add_run

from qfed.errors import StateError
from qfed.federation.runfolder import RunFolder
from qfed_server.dashboard.runs import Run, Runs
from qfed_server.sinks import Follower, Point


class Ears:
    """A sink that remembers."""

    name = "ears"

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.points: list[tuple[str, int]] = []

    def begin(self, run: Run) -> None:
        self.heard.append(f"begin {run.name}")

    def put(self, run: Run, points: Sequence[Point]) -> None:
        self.points += [(point.series, point.round) for point in points]

    def end(self, run: Run) -> None:
        self.heard.append(f"end {run.name}")


def follow(data: Path, ears: Ears) -> int:
    return Follower(data, Runs(data), ears).look()


def test_each_figure_goes_out_once_in_order_also_over_restarts(tmp_path: Path) -> None:
    folder = add_run(tmp_path, "9f2c41d0", "running", done=4)
    ears = Ears()
    assert follow(tmp_path, ears) > 0
    assert follow(tmp_path, ears) == 0, "a new follower knows what went out"
    state, later = RunFolder(folder).checkpoint(), add_run(tmp_path / "later", "x", "running", done=7)
    RunFolder(folder).save(replace(RunFolder(later).checkpoint(), round=7))
    assert state.round == 4
    assert follow(tmp_path, ears) > 0
    (folder / "state.json").write_text(json.dumps({"status": "stopped", "why": "by the operator"}))
    follow(tmp_path, ears)
    follow(tmp_path, ears)
    assert ears.heard == ["begin 9f2c41d0", "end 9f2c41d0"]
    assert len(ears.points) == len(set(ears.points))
    assert [round for series, round in ears.points if series == "score"] == list(range(8))
    assert [round for series, round in ears.points if series == "bytes/up"] == list(range(1, 8))


def test_a_score_that_comes_a_round_later_is_not_lost(tmp_path: Path) -> None:
    folder = add_run(tmp_path, "9f2c41d0", "running", done=4)
    whole = RunFolder(folder).checkpoint()
    unscored = (*whole.rounds[:3], whole.rounds[3].model_copy(update={"metrics": None}))
    RunFolder(folder).save(replace(whole, rounds=unscored))
    ears = Ears()
    follow(tmp_path, ears)
    assert ("score", 4) not in ears.points
    assert ("epsilon", 4) in ears.points
    RunFolder(folder).save(whole)
    follow(tmp_path, ears)
    assert ears.points[-2:] == [("score", 4), ("loss", 4)]


def test_a_damaged_memory_is_told(tmp_path: Path) -> None:
    add_run(tmp_path, "9f2c41d0", "running")
    (tmp_path / "tracked-ears.json").write_text("[")
    with pytest.raises(StateError, match=r"tracked-ears\.json"):
        follow(tmp_path, Ears())


def test_tensorboard_reads_back_what_was_written(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from qfed_server.sinks.tensorboard import TensorBoard

    folder = add_run(tmp_path / "data", "a1b2c3d4", "completed")
    sink = TensorBoard(tmp_path / "logs")
    assert Follower(tmp_path / "data", Runs(tmp_path / "data"), sink).look() > 0
    (logs,) = (tmp_path / "logs").iterdir()
    assert logs.name == "breast-cancer-a1b2c3d4"
    found = EventAccumulator(str(logs)).Reload()
    rounds = RunFolder(folder).checkpoint().rounds
    scores = [(event.step, event.value) for event in found.Scalars("score")][1:]
    assert scores == [(r.round, pytest.approx(r.metrics.score)) for r in rounds if r.metrics]
    assert [event.value for event in found.Scalars("bytes/up")] == [r.bytes_up for r in rounds]
    assert {"epsilon", "loss", "survivors", "seconds/train"} <= set(found.Tags()["scalars"])


def test_mlflow_reads_back_what_was_written(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    folder = add_run(tmp_path / "data", "a1b2c3d4", "completed")
    # In a process of its own: MLflow puts filters and handlers into this one, and tells of deprecations.
    code = """
import sys
from pathlib import Path
from qfed_server.dashboard.runs import Runs
from qfed_server.sinks import Follower
from qfed_server.sinks.mlflow import MLflow
data, uri = Path(sys.argv[1]), sys.argv[2]
for _ in range(2):
    print(Follower(data, Runs(data), MLflow(uri)).look())
import json
from mlflow import MlflowClient
client = MlflowClient(uri)
(run,) = client.search_runs([client.get_experiment_by_name("qfed").experiment_id])
history = [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "score")]
data = run.data
print(json.dumps([run.info.status, run.info.run_name, data.tags["qfed.run"], data.params["privacy.epsilon"], history]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "data"), f"sqlite:///{tmp_path / 'mlflow.db'}"],
        capture_output=True,
        text=True,
        timeout=240,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    first, second, told = done.stdout.strip().splitlines()[-3:]
    assert int(first) > 0
    assert second == "0"
    status, name, run, epsilon, history = json.loads(told)
    assert (status, name, run, epsilon) == ("FINISHED", "breast-cancer", "a1b2c3d4", "3.0")
    rounds = RunFolder(folder).checkpoint().rounds
    assert sorted(history)[1:] == [[r.round, r.metrics.score] for r in rounds if r.metrics]


def test_points_carry_the_time_of_their_round(tmp_path: Path) -> None:
    from qfed_server.sinks import figures

    add_run(tmp_path, "9f2c41d0", "running")
    (run,) = Runs(tmp_path).all()
    times = {point.round: point.t for point in figures(run)}
    assert times[3] == NOW - 200 + 30
