"""The same apps on Flower's Ray runtime: same model, every site's durable state on its disk, no process left behind."""

from __future__ import annotations

import gc
import os
import sqlite3
import subprocess
import sys
import time
import warnings
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from qfed.config import RunConfig, load_config
from qfed.data import load, partition
from qfed.privacy.ledger import Ledger, Limits
from qfed.report import read_result
from qfed.secagg import ClientStore
from qfed.simulation.arms import Arm, run_arm
from qfed.simulation.provision import make_keys

pytest.importorskip("ray")
pytestmark = pytest.mark.e2e

QFED = Path(sys.executable).parent / "qfed"
SITES, ROUNDS = 4, 2
CHANGES = (
    "data.source=wine",
    "model.wires=2",
    "model.layers=1",
    f"federation.sites={SITES}",
    f"training.rounds={ROUNDS}",
    "privacy.mode=local",
    "training.local_steps=2",
    "training.learning_rate=0.2",
    "training.averaging=0",
    "training.batch_size=30",
    "simulation.compare=[]",
)


def configured(*changes: str) -> RunConfig:
    return load_config(None, [*CHANGES, *changes])


def arm_of(config: RunConfig, folder: Path) -> Arm:
    data = partition(load(config.data), config.data, config.federation.sites, config.seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # Ray waits for none of the processes that it starts and ends
        arm = run_arm(config, "engines", data, make_keys(config, data), folder)
        gc.collect()
    return arm


def children() -> set[tuple[int, str]]:
    """Processes below this one with their command lines, and Ray's, which detach themselves.

    Python's own tracker of shared memory, which whatever ran before may have started, lives as long as this process.
    """
    listed = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    rows = [line.split(maxsplit=2) for line in listed.splitlines()[1:]]
    parents = {int(pid): int(parent) for pid, parent, _ in rows}
    found: set[tuple[int, str]] = set()
    for pid, _, arguments in rows:
        above = int(pid)
        while above in parents and above != os.getpid():
            above = parents[above]
        ours = above == os.getpid() and int(pid) != os.getpid()
        if ours and not arguments.startswith("ps ") and "resource_tracker" not in arguments:
            found.add((int(pid), arguments))
    return found


@pytest.fixture(scope="module")
def on_ray(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Arm]:
    """A private, masked run on Ray."""
    before = children()
    folder = tmp_path_factory.mktemp("ray") / "arm"
    arm = arm_of(configured("simulation.engine=ray"), folder)
    assert children() <= before, "no process of Ray's stays"
    return folder, arm


def test_a_private_masked_run_completes(on_ray: tuple[Path, Arm]) -> None:
    _, arm = on_ray
    assert arm.state.status == "completed"
    assert [record.status for record in arm.state.rounds] == ["aggregated"] * ROUNDS
    assert [record.survivors for record in arm.state.rounds] == [SITES] * ROUNDS
    assert arm.state.final is not None
    assert arm.state.final.records == 36


def test_every_sites_ledger_is_charged_on_disk(on_ray: tuple[Path, Arm]) -> None:
    folder, arm = on_ray
    config = arm.learner.config
    for index in range(SITES):
        site = folder / "sites" / f"{index:04d}"
        with closing(sqlite3.connect(site / "ledger.db")) as database:
            rows = [row for row in database.execute("SELECT * FROM entry") if "reserve" in row]
        assert len(rows) == ROUNDS
        ledger = Ledger(site / "ledger.db", Limits(config.privacy.epsilon, config.privacy.delta))
        ledger.verify()
        ledger.close()
        assert arm.spent[index] == pytest.approx(arm.learner.plan.epsilon(ROUNDS))


def test_every_sites_keys_and_labels_are_on_disk(on_ray: tuple[Path, Arm]) -> None:
    folder, _ = on_ray
    for index in range(SITES):
        site = folder / "sites" / f"{index:04d}"
        ClientStore(site / "secagg.db", durable=False).close()  # refuses a file that it cannot read
        with closing(sqlite3.connect(site / "secagg.db")) as database:
            labels = database.execute("SELECT run, COUNT(*) FROM labels").fetchall()
        assert labels == [("engines", ROUNDS + 1)]  # one upload a round, one that only scores
        assert (site / "runs" / "engines.toml").exists()


def test_without_privacy_both_engines_give_the_same_model(tmp_path: Path) -> None:
    arms = [
        arm_of(configured("privacy.mode=off", f"simulation.engine={engine}"), tmp_path / engine)
        for engine in ("inprocess", "ray")
    ]
    assert np.array_equal(arms[0].state.vector, arms[1].state.vector)
    assert not np.array_equal(arms[0].state.vector, arms[0].learner.start)
    assert arms[0].state.final == arms[1].state.final
    assert arms[0].state.traffic == arms[1].state.traffic


def test_the_command_runs_on_ray_and_leaves_no_process(tmp_path: Path) -> None:
    changes = [part for change in CHANGES for part in ("--set", change)]
    done = subprocess.run(
        [QFED, "simulate", *changes, "--engine", "ray", "--out", "out", "--quiet"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=280,
        env=os.environ | {"QFED_MARK": (mark := f"engines-{os.getpid()}")},
    )
    assert done.returncode == 0, done.stderr
    result = read_result(tmp_path / "out")
    assert result.config.simulation.engine == "ray"
    assert result.status == "completed"
    assert result.privacy.epsilon is not None
    assert [site.epsilon for site in result.sites] == [pytest.approx(result.privacy.epsilon)] * SITES
    assert "DEBUG" not in done.stderr + done.stdout, "Flower's log is for --verbose"
    assert gone(mark), f"processes of Ray's stay: {marked(mark)}"


def gone(mark: str) -> bool:
    """Whether all marked processes end; Ray's agents notice a little later that their parent did."""
    end = time.monotonic() + 60
    while marked(mark) and time.monotonic() < end:
        time.sleep(0.2)
    return not marked(mark)


def marked(mark: str) -> list[int]:
    """Processes that inherited the mark in their environment."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark.encode() in entry.read_bytes():
                found.append(int(entry.parent.name))
        except OSError:
            continue  # gone meanwhile, or not ours
    return found
