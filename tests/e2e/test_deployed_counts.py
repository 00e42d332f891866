"""A private release of pair counts on a real server with three real agents, and what is left behind on both sides."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from deployed import Deployment

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


def test_a_private_release_from_submission_to_counts(tmp_path: Path) -> None:
    with Deployment(tmp_path) as lab:
        lab.start_server()
        lab.start_sites()
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
            lab.kill(name)
            book = Ledger(lab.site(name) / "ledger.db", Limits(10.0, 1e-5))
            assert [(row.what, row.kind, row.run) for row in book.rows()] == [
                (what, "synthesize", run) for what in ("open", "reserve", "settle")
            ]
            assert book.spent(name) == pytest.approx(result.privacy.epsilon or 0, rel=1e-6)
            book.close()
