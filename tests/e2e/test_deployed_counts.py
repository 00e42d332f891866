"""Private releases of pair counts on a real server with three real agents: whole, killed in the middle, failed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from deployed import Deployment
from small_runs import charges

from qfed.config import load_config
from qfed.federation.synthesis import coding_of
from qfed.generative.release import Release
from qfed.privacy.ledger import Ledger, Limits
from qfed.report import read_synthesis

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

COUNTS = load_config(
    None,
    ["kind=synthesize", "data.source=wine", "federation.sites=3", "federation.deadline=230", "synth.classes=together"],
)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A server and three agents that stay for all releases here; their budgets are enough for three."""
    with Deployment(tmp_path_factory.mktemp("counts")) as lab:
        lab.start_server()
        lab.start_sites()
        yield lab


def charged(lab: Deployment, run: str) -> dict[str, int]:
    """How often each site was charged for a run."""
    return {name: sum(row["run"] == run for row in charges(lab.site(name) / "ledger.db")) for name in lab.names}


def test_a_private_release_from_submission_to_counts(lab: Deployment, tmp_path: Path) -> None:
    run = lab.submit(config=COUNTS)
    assert lab.wait(run) == "completed", lab.log("server")
    lab.qfed("fetch", run, "--out", tmp_path / "out", "--data", lab.data)
    result, release = read_synthesis(tmp_path / "out"), Release.load(tmp_path / "out")
    assert (result.run, result.privacy.mode, result.round and result.round.survivors) == (run, "shared", 3)
    assert 2.99 < (result.privacy.epsilon or 0) <= 3.0
    coding = coding_of(COUNTS)
    bits = np.concatenate([coding.encode(records.train) for records in lab.records])
    exact = Release.exact(bits, coding.names)
    (counted,), (true,) = release.parts, exact.parts
    assert counted.records != true.records
    assert abs(counted.records - true.records) < 6 * result.records_stddev
    apart = np.abs(counted.pairs * counted.records - true.pairs * true.records)
    assert apart.max() < 7 * result.cell_stddev + 7 * result.records_stddev
    assert "which any record moves by" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    for name in lab.names:
        with closing(Ledger(lab.site(name) / "ledger.db", Limits(10.0, 1e-5))) as book:
            assert [(row.what, row.kind, row.run) for row in book.rows()] == [
                (what, "synthesize", run) for what in ("open", "reserve", "settle")
            ]
            assert book.spent(name) == pytest.approx(result.privacy.epsilon or 0, rel=1e-6)


def test_a_release_whose_server_is_killed_twice_is_one_release_on_one_charge(lab: Deployment) -> None:
    run = lab.submit(config=COUNTS)
    lab.kill_server_when("uploads", lambda: lab.memory(run)["first_round"] is not None)
    lab.kill_server_when("the masks to be opened", lambda: lab.memory(run)["fixed"] is not None)
    assert lab.wait(run) == "completed", lab.log("server")
    assert lab.memory(run)["last"] == 1, "one epoch, so one label"
    assert read_synthesis(lab.run_folder(run)).round.survivors == 3  # type: ignore[union-attr]
    assert charged(lab, run) == dict.fromkeys(lab.names, 1)


def test_a_release_that_failed_is_resumed_under_its_old_label(lab: Deployment) -> None:
    """site-2 has no budget for another release and refuses it, until its operator raises the budget."""
    with closing(Ledger(lab.site("site-2") / "ledger.db", Limits(10.0, 1e-5))) as book:
        spent = book.spent("site-2")
    assert spent > 2.99, "from the releases above"
    lab.amend("site-2", policy={"epsilon": spent + 0.1})
    run = lab.submit(config=COUNTS)
    assert lab.wait(run) == "failed"
    assert f"qfed resume {run}" in str(lab.state(run)["why"])
    assert lab.events(run, "round")[0]["dropouts"] == {"site-2": "BudgetExhausted"}
    assert not (lab.run_folder(run) / "statistics.json").exists(), "nothing was opened"
    assert charged(lab, run) == {"site-0": 1, "site-1": 1, "site-2": 0}
    lab.amend("site-2", policy={"epsilon": 10.0})
    lab.qfed("resume", run, "--data", lab.data)
    assert lab.wait(run) == "completed", lab.log("server")
    assert lab.memory(run)["last"] == 1
    assert read_synthesis(lab.run_folder(run)).round.survivors == 3  # type: ignore[union-attr]
    assert charged(lab, run) == dict.fromkeys(lab.names, 1)
    assert "has not failed" in lab.qfed("resume", run, "--data", lab.data, status=2)
