"""A federation on a device: counted, stopped before a cap with its last good model, and said in the result."""

from __future__ import annotations

from pathlib import Path

import pytest

from qfed.config import load_config
from qfed.errors import ConfigError, LocalProtocolError
from qfed.federation.device_use import circuits_of_a_record, estimate, meter_for
from qfed.federation.local import learner_for
from qfed.quantum.spending import counted_by
from qfed.report.guarantee import facts, notices
from qfed.simulation import simulate

BASE = [
    "training.method=dp_zo", "training.rounds=3", "federation.sites=3", "training.batch_size=151.0",
    "quantum.device=default.qubit", "quantum.shots=1", "simulation.compare=[]", "model.wires=2",
]  # fmt: skip
RECORDS = 455
"""Of breast_cancer, to train on."""
A_ROUND = 2 * RECORDS
"""Circuits: two a record."""


def test_circuits_and_shots_are_counted_as_estimated(tmp_path: Path) -> None:
    config = load_config(None, BASE)
    expected = estimate(config)
    assert expected is not None
    assert circuits_of_a_record(config) == 2
    result = simulate(config, out=tmp_path / "run")
    use = result.device
    assert use is not None
    assert (use.circuits, use.shots, use.price, use.capped) == (3 * A_ROUND, 3 * A_ROUND, 0.0, False)
    assert abs(use.circuits - expected.circuits) <= 0.01 * use.circuits
    assert result.status == "completed"
    assert result.privacy.directions == 1
    assert any("2,730\N{NO-BREAK SPACE}circuits" in fact.answer for fact in facts(result))
    assert "2,730\N{NO-BREAK SPACE}circuits" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def test_a_cap_stops_the_run_before_it_is_passed_and_keeps_the_model(tmp_path: Path) -> None:
    cap = 2 * A_ROUND + 180  # the third round begins, and no site of it ends
    config = load_config(None, [*BASE, "training.rounds=9", f"quantum.most_shots={cap}"])
    expected = estimate(config)
    assert expected is not None
    assert "most_shots" in expected.exceeds
    result = simulate(config, out=tmp_path / "run")
    assert result.status == "stopped"
    assert result.device is not None
    assert result.device.capped
    assert 2 * A_ROUND <= result.device.shots <= cap
    assert [record.status for record in result.rounds[:3]] == ["aggregated", "aggregated", "failed"]
    assert {dropout.reason for dropout in result.rounds[2].dropouts} == {"SpendingCapReached"}
    assert any("cap" in notice.title for notice in notices(result))
    assert (tmp_path / "run" / "model.npz").exists()


def test_a_restarted_site_goes_on_from_what_it_has_spent(tmp_path: Path) -> None:
    config = load_config(None, [*BASE, "quantum.most_shots=1000"])
    for _ in range(2):
        meter = meter_for(config, "r", tmp_path / "spending.db", None)
        assert meter is not None
        meter.charge(400, 400)
    again = meter_for(config, "r", tmp_path / "spending.db", None)
    assert again is not None
    assert again.spent().shots == 800


def test_a_device_runs_under_a_meter_only(tmp_path: Path) -> None:
    config = load_config(None, BASE)
    learner = learner_for(config)

    def contribute() -> None:
        learner.contribute(learner.start, pytest.fail, ledger=None, dataset="d", run="r", round=1)

    with pytest.raises(LocalProtocolError, match="under a meter only"):
        contribute()
    with (
        counted_by(meter_for(config, "r", tmp_path / "spending.db", None)),
        pytest.raises(LocalProtocolError, match="needs the ledger"),  # further on
    ):
        contribute()


def test_a_cap_in_money_on_a_device_without_a_price(tmp_path: Path) -> None:
    changes = ["quantum.device=ionq.simulator", "quantum.trust_provider=true", "quantum.most_price=10.0"]
    config = load_config(None, [*BASE, *changes])
    with pytest.raises(ConfigError, match="no entry for it"):
        meter_for(config, "r", tmp_path / "spending.db", None)


def test_an_estimate_in_money(tmp_path: Path) -> None:
    arn = "arn:aws:braket:us-west-1::device/qpu/rigetti/Ankaa-3"
    changes = ["quantum.device=braket.aws.qubit", "quantum.trust_provider=true", f'quantum.options.device_arn="{arn}"']
    found = estimate(load_config(None, [*BASE, *changes, "quantum.shots=100"]))
    assert found is not None
    assert found.price == pytest.approx(found.circuits * (0.3 + 100 * 0.0009))
    assert "USD" in found.sentence()
    assert "2025" in found.sentence()


def test_a_remote_device_is_in_the_statement() -> None:
    from qfed.federation.statement import privacy_statement

    config = load_config(None, [*BASE, "quantum.device=ionq.simulator", "quantum.trust_provider=true"])
    from qfed.federation.statement import Spending

    statement = privacy_statement(config, 3, Spending(epsilon=1.0))
    assert statement.provider == "ionq.simulator"
    assert "the provider of the quantum device ionq.simulator" in statement.trust
    assert "records towards the provider" in statement.not_covered[0]
    local = privacy_statement(load_config(None, BASE), 3, Spending(epsilon=1.0))
    assert local.provider is None
    assert not any("provider" in line for line in (local.trust, *local.not_covered))
