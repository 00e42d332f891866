"""The way to a D-Wave system, up to the wire: the vendor's client against its API as served by solver_api.py."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from qfed.config import SynthConfig
from qfed.errors import ConfigError, MissingExtra, QfedError, SpendingCapReached
from qfed.generative.annealers import annealer_for
from qfed.generative.boltzmann import Boltzmann
from qfed.generative.leap import meter_for
from qfed.generative.statistics import PairCounts
from qfed.quantum.spending import counted_by

TOKEN = "DEV-0123456789abcdef"  # noqa: S105  of the server in this test


def _load() -> object:
    path = Path(__file__).with_name("solver_api.py")
    spec = importlib.util.spec_from_file_location("solver_api", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["solver_api"] = module
    spec.loader.exec_module(module)
    return module


solver_api = _load()


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("DWAVE_API_TOKEN", "DWAVE_API_ENDPOINT", "DWAVE_API_SOLVER", "DWAVE_PROFILE", "DWAVE_API_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DWAVE_CONFIG_FILE", str(tmp_path / "dwave.conf"))
    (tmp_path / "dwave.conf").write_text("")


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    with solver_api.solver_api(TOKEN) as served:
        monkeypatch.setenv("DWAVE_API_TOKEN", TOKEN)
        monkeypatch.setenv("DWAVE_API_ENDPOINT", served.address)
        yield served


CONFIG = SynthConfig(sampler="qpu", steps=60, reads=400)


def some_counts() -> PairCounts:
    rng = np.random.default_rng(0)
    hidden = rng.random((2000, 1))
    return PairCounts.exact((rng.random((2000, 4)) < 0.1 + 0.8 * hidden).astype(np.uint8))


def test_a_machine_learns_on_the_system_that_the_client_finds(api) -> None:
    stats = some_counts()
    with counted_by(meter_for(CONFIG)):
        machine = Boltzmann.of(CONFIG).fit(stats, np.random.default_rng(0))
        sample = machine.sample(2500, np.random.default_rng(1))
    found = PairCounts.exact(sample)
    assert sample.shape == (2500, 4)
    assert np.abs(found.correlations - stats.correlations).max() < 0.12
    annealer = machine.describe()["annealer"]  # as it was after the fit: 60 steps and a check
    assert annealer["system"] == "Test_system"
    assert annealer["seconds"] == pytest.approx(61 * solver_api.ACCESS_MICROSECONDS / 1e6)
    sent = api.problems[0]["params"]
    assert (sent["num_reads"], sent["auto_scale"], sent["answer_mode"]) == (400, False, "raw")
    assert sent["annealing_time"] == 20.0
    assert api.problems[0]["type"] == "ising"


def test_spending_stops_before_a_cap_is_passed(api) -> None:
    config = CONFIG.model_copy(update={"most_shots": 1000})
    with pytest.raises(SpendingCapReached, match=r"800 of the 1,000 shots .*nothing was submitted.*synth.most_shots"):
        Boltzmann.of(config).fit(some_counts(), np.random.default_rng(0))
    assert sum(problem["params"]["num_reads"] for problem in api.problems) == 800
    api.problems.clear()
    config = CONFIG.model_copy(update={"most_seconds": 0.2})
    with pytest.raises(SpendingCapReached, match=r"of the 0.2 processor seconds .*synth.most_seconds"):
        Boltzmann.of(config).fit(some_counts(), np.random.default_rng(0))
    assert 0 < len(api.problems) * solver_api.ACCESS_MICROSECONDS / 1e6 <= 0.2


def test_errors_say_what_to_do_and_never_show_the_token(api, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"solver='Nowhere' not online .*dwave solvers"):
        annealer_for(CONFIG.model_copy(update={"solver": "Nowhere"}), 4)
    with pytest.raises(ConfigError, match="topology='pegasus' not online"):
        annealer_for(CONFIG.model_copy(update={"topology": "pegasus"}), 4)
    api.fails = True
    with pytest.raises(QfedError, match=r"service failed .* for Test_system; try again later") as caught:
        Boltzmann.of(CONFIG).fit(some_counts(), np.random.default_rng(0))
    assert TOKEN not in str(caught.value)
    monkeypatch.setenv("DWAVE_API_TOKEN", "SECRET-wrong")
    with pytest.raises(ConfigError, match="D-Wave refuses the token") as caught:
        annealer_for(CONFIG, 4)
    assert "SECRET" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_settings_file_that_cannot_be_read_is_not_quoted(tmp_path: Path) -> None:
    (tmp_path / "dwave.conf").write_text("token = SECRET\nnonsense")
    with pytest.raises(ConfigError, match=r"cannot read dwave.conf \(ConfigFileParseError\)") as caught:
        annealer_for(CONFIG, 4)
    assert "SECRET" not in str(caught.value)


def test_without_a_token_one_line_says_so() -> None:
    with pytest.raises(ConfigError, match=r'needs a token of D-Wave Leap: set DWAVE_API_TOKEN.*"mock"') as caught:
        annealer_for(CONFIG, 4)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("sampler", ["sa", "sqa", "mock", "qpu"])
def test_without_the_extra_one_line_says_so(sampler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] in ("dwave", "dimod", "minorminer")]:
        monkeypatch.delitem(sys.modules, name)

    class Blocked:
        def find_spec(self, name: str, path: object = None, target: object = None) -> None:
            if name.split(".")[0] in ("dwave", "dimod", "minorminer"):
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(sys, "meta_path", [Blocked(), *sys.meta_path])
    with pytest.raises(MissingExtra, match=r"dwave is not installed; install it with: pip install 'qfed\[dwave\]'"):
        annealer_for(SynthConfig(sampler=sampler), 4)
