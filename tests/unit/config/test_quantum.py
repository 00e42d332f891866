"""The section [quantum]: what fits together, what is remote, and that no secret gets in."""

from __future__ import annotations

from pathlib import Path

import pytest

from qfed.config import QuantumConfig, RunConfig, load_config
from qfed.errors import ConfigError


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["quantum.shots=100"], "takes none; name a PennyLane device"),
        (["quantum.noise.readout_error=0.1"], "use device = 'default.mixed'"),
        (["quantum.device=default.qubit", "quantum.noise.depolarizing=0.1"], "use device = 'default.mixed'"),
        (["quantum.device=default.mixed", "quantum.noise.depolarizing=1.5"], "less than or equal to 1"),
        (["quantum.device=ionq.simulator"], "set quantum.shots"),
        (["quantum.device=ionq.simulator", "quantum.shots=10"], "differential privacy does not cover"),
        (["quantum.device=ionq.simulator", "quantum.shots=10", "quantum.remote=false"], "is not true"),
        (["quantum.device=somebodys.machine", "quantum.shots=10"], "trust_provider"),
        (["quantum.remote=true"], "is not true"),
        (["quantum.device=default.qubit", "quantum.most_shots=10"], "set quantum.shots"),
        (["quantum.device=default.qubit", "quantum.options.shots=10"], "set by quantum.shots"),
        (["quantum.device=default.qubit", "quantum.shots=0"], "greater than or equal to 1"),
    ],
)
def test_what_does_not_fit_is_one_clear_error(changes: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_config(None, changes)


@pytest.mark.parametrize("key", ["token", "api_key", "apiKey", "ibm_token", "aws_secret_access_key", "password"])
def test_no_secret_gets_into_a_configuration(key: str) -> None:
    with pytest.raises(ConfigError, match="look like a secret") as raised:
        load_config(None, ["quantum.device=qiskit.aer", f"quantum.options.{key}=hunter2"])
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    ("device", "remote"),
    [
        ("qfed", False), ("default.qubit", False), ("default.mixed", False), ("lightning.gpu", False),
        ("braket.local.qubit", False), ("qiskit.aer", False), ("braket.aws.qubit", True), ("qiskit.remote", True),
        ("ionq.simulator", True), ("ionq.qpu", True), ("never.heard.of", True), ("braket.local", True),
    ],
)  # fmt: skip
def test_what_is_not_known_to_be_local_is_remote(device: str, remote: bool) -> None:
    quantum = QuantumConfig(device=device, shots=None if device == "qfed" else 10)
    assert quantum.is_remote is remote


def test_a_plugin_that_simulates_here_can_be_said_to() -> None:
    config = load_config(
        None, ["quantum.device=my.simulator", "quantum.remote=false", "quantum.options={backend='fast', threads=2}"]
    )
    assert not config.quantum.is_remote
    assert config.quantum.target == "fast"


def test_trust_lets_a_remote_device_in_and_a_twin_needs_none() -> None:
    remote = ["quantum.device=ionq.simulator", "quantum.shots=10"]
    assert load_config(None, [*remote, "quantum.trust_provider=true"]).quantum.is_remote
    assert load_config(None, [*remote, "model.kind=twin"]).model.kind == "twin"


def test_a_price_table_is_found_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text('[quantum]\ndevice = "default.qubit"\nprices = "mine.toml"\n', encoding="utf-8")
    assert load_config(tmp_path / "run.toml").quantum.prices == str(tmp_path / "mine.toml")


def test_the_default_is_the_kernel() -> None:
    assert RunConfig().quantum.on_kernel
