"""Modes shared and site through the whole path: real masks, real ledgers, drops down to the least survivors."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from scipy.stats import chi2
from small_runs import RUN, Lab, charges, kind_of, small, small_shared

from qfed._flower import Message
from qfed.config import RunConfig
from qfed.errors import ConfigError
from qfed.federation import wire
from qfed.federation.contribution import mean_update, policy_of
from qfed.federation.result import RunResult, result_schema
from qfed.privacy.accounts import account
from qfed.privacy.ledger import Ledger, Limits
from qfed.privacy.plan import SharedPlan
from qfed.report import units
from qfed.report.guarantee import facts
from qfed.simulation import simulate
from qfed_server import rounds

WIDE = ("model.wires=4", "training.rounds=4")


def run_with_sums(lab: Lab, monkeypatch: pytest.MonkeyPatch, absent: int) -> list[tuple[np.ndarray, int]]:
    """Run the federation while the last `absent` sites fail to train; the decoded sums, and of how many sites."""
    seen: list[tuple[np.ndarray, int]] = []

    def watched(config: RunConfig, sums: Mapping[str, np.ndarray], survivors: int) -> np.ndarray | None:
        seen.append((sums["part"].copy(), survivors))
        return mean_update(config, sums, survivors)

    monkeypatch.setattr(rounds, "mean_update", watched)
    grid = lab.grid()

    def fails(index: int, message: Message) -> bool:
        return index >= 5 - absent and kind_of(message)[0] == wire.TRAIN

    grid._fails = fails
    rounds.run_rounds(grid, lab.folder)
    assert lab.folder.checkpoint().status == "completed"
    return seen


@pytest.mark.parametrize("absent", [0, 1])
def test_the_decoded_sum_carries_the_noise_of_its_survivors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, absent: int
) -> None:
    monkeypatch.setattr(
        "qfed.privacy.shared_plan.clipped_sums",
        lambda model, loss, sites, **_: np.zeros((len(sites), lab.learner.parameters)),
    )
    lab = Lab(tmp_path, small_shared(*WIDE))
    plan = lab.learner.plan
    assert isinstance(plan, SharedPlan)
    assert policy_of(lab.config, "f").min_survivors == 4
    assert plan.shares.honest == 3
    seen = run_with_sums(lab, monkeypatch, absent)
    assert [survivors for _, survivors in seen] == [5 - absent] * 4
    noise = np.concatenate([total for total, _ in seen])
    one = plan.shares.stddev(lab.learner.parameters)

    def accepts(stddev: float) -> bool:
        statistic = float(np.sum((noise / stddev) ** 2))
        return bool(chi2.ppf(1e-6, len(noise)) < statistic < chi2.isf(1e-6, len(noise)))

    assert accepts(one * math.sqrt(5 - absent))
    assert not accepts(one * math.sqrt(5 - absent) * 2 / 3)
    assert not accepts(one * math.sqrt(5 - absent) * 3 / 2)
    # Two of the sites, those that may collude, know their own noise; the rest still has what was promised.
    assert one * math.sqrt(4 - 1) >= plan.noise_multiplier * 4096


def test_a_round_below_the_least_survivors_opens_nothing_and_is_charged(tmp_path: Path) -> None:
    lab = Lab(tmp_path, small_shared("training.rounds=2"))
    grid = lab.grid()
    grid._fails = lambda index, message: index > 2 and kind_of(message) == (wire.TRAIN, "1")
    rounds.run_rounds(grid, lab.folder)
    state = lab.folder.checkpoint()
    assert [record.status for record in state.rounds] == ["failed", "aggregated"]
    assert [row["round"] for row in charges(lab.site(0) / "ledger.db")] == [1, 2]
    assert [row["round"] for row in charges(lab.site(4) / "ledger.db")] == [2]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunResult]:
    out = tmp_path_factory.mktemp("shared") / "out"
    compare = 'simulation.compare=["twin","non_private","no_federation"]'
    averaged = ("training.averaging=0.5", "federation.strategy=fedavgm")
    return out, simulate(small_shared("training.rounds=3", *averaged, compare), out=out)


def test_a_run_says_what_it_promises(done: tuple[Path, RunResult]) -> None:
    out, result = done
    jsonschema.validate(
        json.loads((out / "result.json").read_text()), result_schema(), cls=jsonschema.Draft202012Validator
    )
    statement = result.privacy
    assert (statement.mode, statement.unit, statement.honest) == ("shared", "one record of one site", 3)
    assert 2.99 < (statement.epsilon or 0) <= 3.0
    assert (statement.epsilon_alone or 0) > (statement.epsilon or 0)
    assert 0 < (statement.sampling_distance or 0) < 1e-25
    assert "at least 4 sites" in statement.trust
    assert "at most 1 may work with the aggregator" in statement.trust
    told = " ".join(f"{fact.answer} {fact.meaning}" for fact in facts(result)).replace(units.NBSP, " ")
    assert "each clipped to norm 1; 3 steps, every record enters every step." in told
    assert f"would still give epsilon {math.ceil((statement.epsilon_alone or 0) * 100) / 100:.2f}" in told
    assert {comparison.kind for comparison in result.comparisons} == {"twin", "non_private", "no_federation"}
    assert all(record.status == "aggregated" for record in result.rounds)


def test_each_ledger_agrees_with_the_result(done: tuple[Path, RunResult]) -> None:
    out, result = done
    for site in result.sites:
        ledger = Ledger(out / "ledgers" / f"{site.name}.db", Limits(3.0, 1e-5))
        assert ledger.spent(site.name) == pytest.approx(result.privacy.epsilon or 0, rel=1e-6)
        assert all(entry.reply is None for entry in ledger.rows())
        ledger.close()


def test_the_final_model_is_the_mean_of_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Lab(tmp_path, small_shared("training.rounds=4", "training.averaging=0.5"))
    vectors: list[np.ndarray] = []
    original = rounds.server_step

    def watched(*given: Any) -> Any:
        vector, state = original(*given)
        vectors.append(vector)
        return vector, state

    monkeypatch.setattr(rounds, "server_step", watched)
    rounds.run_rounds(lab.grid(), lab.folder)
    np.testing.assert_allclose(lab.folder.checkpoint().vector, np.mean(vectors[-2:], axis=0), atol=1e-6)


def test_private_metrics_are_told_once_with_noise(tmp_path: Path) -> None:
    result = simulate(small_shared("privacy.private_metrics=true", "privacy.epsilon=8"), out=tmp_path / "out")
    assert result.initial is None
    assert [record.metrics is None for record in result.rounds] == [True, False]
    assert 0 <= result.final.score <= 1
    assert 7.9 < (result.privacy.metrics_epsilon or 0) <= 8
    assert any("more than one evaluation" in item for item in result.privacy.not_covered)
    ledger = Ledger(tmp_path / "out" / "ledgers" / "site-0.db", Limits(8.0, 1e-5))
    assert ledger.spent(account("site-0", held_out=True)) == pytest.approx(
        result.privacy.metrics_epsilon or 0, rel=1e-6
    )
    ledger.close()


def test_mode_site_protects_sites_and_warns_when_they_are_few(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    changes = ("privacy.mode=site", "privacy.few_sites=true", 'simulation.compare=["non_private"]')
    result = simulate(small(*changes), out=tmp_path / "out")
    assert "expect a poor model below 50 sites" in caplog.text
    assert result.privacy.unit.startswith("everything that one site contributes")
    assert result.sites[0].epsilon == pytest.approx(result.privacy.epsilon, rel=1e-6)
    rows = charges(tmp_path / "out" / "ledgers" / "site-0.db")
    assert {row["dataset"] for row in rows} == {account("site-0", "site")}


def test_more_colluders_than_secure_aggregation_withstands_are_refused() -> None:
    config = small_shared("federation.sites=12", "federation.quorum=1", "privacy.colluders=10")
    with pytest.raises(ConfigError, match=r"privacy\.colluders=10, but secure aggregation among sites=12 withstands"):
        policy_of(config, RUN)
