"""The audit through the real plan: bugs put into it are flagged, honest plans pass, in every mode."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from small_runs import small

from qfed.errors import ConfigError
from qfed.federation.local import learner_for
from qfed.privacy.audit.canaries import AuditModel
from qfed.privacy.gradients import chain_for
from qfed.simulation import simulate
from qfed.simulation.audit import audit


def _bench() -> ModuleType:
    """tests/bench/audit.py, where the bugs are."""
    path = Path(__file__).parents[2] / "bench" / "audit.py"
    spec = importlib.util.spec_from_file_location("audit_bench", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["audit_bench"] = module
    spec.loader.exec_module(module)
    return module


bench = _bench()
CAUGHT_BY = {
    "noise x 0.9": "noise level",
    "no noise": "noise level",
    "no clipping": "canary gain",
    "batch-mean clipping": "canary gain",
    "the same seed each round": "noise correlation",
    "clipping a direction at a time": "canary gain",
}
ZEROTH = [(bug, mode) for bug in bench.ZEROTH_BUGS for mode in bench.MODES]
ZEROTH = [pair for pair in ZEROTH if pair not in {("noise x 0.9", "local"), ("batch-mean clipping", "local")}]


@pytest.mark.parametrize("kind", ["twin", "hybrid"])
def test_the_audit_goes_through_the_engine_that_trains(kind: str) -> None:
    """Not through Opacus' hooks, which is where a model lands that the engine does not know."""
    learner = learner_for(small(f"model.kind={kind}"))
    model, features = AuditModel(learner.model, 50), learner.schema.inputs
    assert chain_for(learner.model.train(), (features,), torch.float32) is not None
    assert chain_for(model.train(), (features + 51,), torch.float32) is not None


@pytest.mark.parametrize("mode", ["local", "shared"])
@pytest.mark.parametrize("bug", bench.BUGS)
def test_a_bug_in_the_plan_is_flagged(bug: str, mode: str) -> None:
    verdict = bench.caught(bug, mode)
    assert not verdict.passed
    assert CAUGHT_BY[bug] in verdict.failed
    gates = {gate.name: gate.value for gate in verdict.gates}
    if bug == "noise x 0.9":
        assert gates["noise level"] < -5
    if bug == "no clipping":
        assert gates["canary gain"] > 10
    json.dumps(verdict.to_dict(), allow_nan=False)


@pytest.mark.parametrize("bug", ["noise x 0.9", "no noise", "the same seed each round"])
def test_a_bug_in_mode_site_is_flagged(bug: str) -> None:
    config = bench.small("shared", "privacy.mode=site", "privacy.few_sites=true", "training.local_steps=2")
    assert audit(config, canaries=400, seed=1).passed
    with bench.BUGS[bug]():
        verdict = audit(config, canaries=400, seed=1)
    assert CAUGHT_BY[bug] in verdict.failed


@pytest.mark.parametrize(
    ("bug", "mode"),
    [
        ("noise x 0.9", "local"),
        ("batch-mean clipping", "local"),
        *(pytest.param(bug, mode, marks=pytest.mark.slow) for bug, mode in ZEROTH),
    ],
)
def test_a_bug_in_a_zeroth_order_plan_is_flagged(bug: str, mode: str) -> None:
    verdict = bench.caught(bug, mode, "dp_zo")
    assert CAUGHT_BY[bug] in verdict.failed
    assert verdict.method == "dp_zo"
    gates = {gate.name: gate.value for gate in verdict.gates}
    if bug == "clipping a direction at a time":
        assert gates["canary gain"] == pytest.approx(2, abs=0.6), "the root of four directions"


@pytest.mark.parametrize("mode", ["local", "shared"])
def test_an_honest_zeroth_order_plan_passes_and_its_canaries_prove_something(mode: str) -> None:
    config = bench.small(mode, "training.rounds=4", "privacy.epsilon=8", method="dp_zo")
    verdict = audit(config, canaries=150, sites=2, seed=5)
    assert verdict.passed, verdict.failed
    assert verdict.epsilon == pytest.approx(8, abs=0.02)
    assert 1 < max(bound.epsilon for bound in verdict.bounds if bound.binding) < 8
    assert verdict.releases == (32 if mode == "local" else 4)


def test_a_sampled_zeroth_order_plan_on_a_device_is_audited_as_it_is_charged() -> None:
    """The device is not asked: what it answers is clipped afterwards."""
    device = ["model.kind=hybrid", "quantum.device=default.mixed", "quantum.shots=20"]
    config = bench.small("shared", "training.sampling_rate=0.3", "training.rounds=6", *device, method="dp_zo")
    verdict = audit(config, canaries=150, seed=3)
    assert verdict.passed, verdict.failed
    assert verdict.sampling_rate == 0.3


def test_more_directions_than_an_audit_can_invert_are_told_with_the_way_out() -> None:
    config = bench.small("local", "training.directions=8", method="dp_zo")
    with pytest.raises(ConfigError, match=r"canaries=250 .* 8000 directions .* --canaries 125"):
        audit(config)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["gradient", "dp_zo"])
def test_honest_plans_pass(method: str) -> None:
    """The short form of tests/bench/audit.py, which makes 100 runs."""
    alarms = bench.false_alarms(8, (method,))
    assert sum(alarms.values()) <= 1, alarms


def test_sampled_batches_pass_and_claim_what_the_plan_claims() -> None:
    config = bench.small("local", "training.sampling_rate=0.3", "training.batch_size=9", "training.rounds=3")
    verdict = audit(config, canaries=400, sites=2, seed=3)
    assert verdict.passed, verdict.failed
    assert verdict.epsilon == pytest.approx(3.0, abs=0.02)
    assert (verdict.rounds, verdict.releases, verdict.sites) == (3, 24, 2)
    assert len(verdict.scores_in) + len(verdict.scores_out) == verdict.canaries == 400
    assert np.mean(verdict.scores_in) > np.mean(verdict.scores_out)


def test_fewer_rounds_claim_less() -> None:
    verdict = audit(bench.small("local"), canaries=200, sites=2, rounds=1, seed=3)
    assert verdict.rounds == 1
    assert verdict.epsilon < 2.0


def test_a_plan_without_privacy_has_nothing_to_audit() -> None:
    with pytest.raises(ConfigError, match="nothing to audit"):
        audit(small("privacy.mode=off"))


@pytest.mark.parametrize("method", bench.METHODS)
def test_a_finished_run_is_audited_with_its_ledgers_and_its_model(method: str, tmp_path: Path) -> None:
    config = bench.small("local", "simulation.compare=[]", "training.rounds=2", method=method)
    simulate(config, out=tmp_path / "run")
    verdict = audit(config, folder=tmp_path / "run", canaries=200, sites=2, membership=True, seed=1)
    assert verdict.passed, verdict.failed
    assert verdict.gates[-1].name == "run's ledgers"
    attack = verdict.membership
    assert attack is not None
    assert 0.3 < attack.auc < 0.8
    assert attack.false_positive_rate[0] == attack.true_positive_rate[0] == 0.0
    assert attack.false_positive_rate[-1] == attack.true_positive_rate[-1] == 1.0
    ledgers = sorted((tmp_path / "run" / "ledgers").glob("*.db"))
    ledgers[1].write_bytes(ledgers[0].read_bytes())  # another site's
    found = audit(config, folder=tmp_path / "run", canaries=200, sites=2, seed=1)
    assert "run's ledgers" in found.failed
    ledgers[1].unlink()
    with pytest.raises(ConfigError, match="no ledger of site="):
        audit(config, folder=tmp_path / "run", canaries=200, sites=2, seed=1)
