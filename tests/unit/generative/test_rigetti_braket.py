"""Braket: its simulators and its strict emulator, and the client for Amazon's service up to the network."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pennylane as qml
import pytest
from braket.circuits import Circuit
from braket.emulation.pass_manager import EmulatorValidationError

from qfed.config import BornConfig, SynthConfig
from qfed.errors import CircuitError, ConfigError, MissingExtra, SpendingCapReached
from qfed.generative.born import Born
from qfed.generative.release import Release
from qfed.generative.rigetti import backends, braket
from qfed.generative.rigetti.calibration import LABEL, document, square
from qfed.generative.rigetti.chip import Chip, Native, chip_of
from qfed.generative.rigetti.routing import Compiled, compiled
from qfed.generative.statistics import Bits, PairCounts
from qfed.generative.synthesizer import Synthesizer
from qfed.quantum.spending import Caps, Meter, counted_by


@pytest.fixture(scope="module")
def table() -> PairCounts:
    rng = np.random.default_rng(0)
    first = rng.random(2000) < 0.3
    bits = [first, first ^ (rng.random(2000) < 0.1), rng.random(2000) < 0.6]
    bits.append(bits[1] ^ bits[2] ^ (rng.random(2000) < 0.2))
    bits.append(bits[0] ^ (rng.random(2000) < 0.15))
    return PairCounts.exact(np.stack(bits, 1).astype(np.uint8))


@pytest.fixture(scope="module")
def trained(table: PairCounts) -> Born:
    return Born.of(SynthConfig(generator="born")).fit(table, np.random.default_rng(0))


def on(trained: Born, **keys: Any) -> Born:
    """The trained circuit on another backend."""
    return Born.restore(SynthConfig(generator="born", born=BornConfig(**keys)), trained.state())


def emulator(native: Native = "cz", **errors: float) -> tuple[Chip, braket.Emulated]:
    paper = document(square(3, 3), native=native, **errors)  # type: ignore[arg-type]
    return chip_of(paper, "made-up device"), braket.Emulated(json.dumps(paper))


def distance(first: Bits, stats: PairCounts) -> float:
    i, j = np.triu_indices(len(stats.bits), 1)
    return float(0.5 * np.abs(PairCounts.exact(first).pairs - stats.pairs)[i, j].sum((1, 2)).mean())


def test_braket_and_the_trained_circuit_agree(trained: Born) -> None:
    operations = trained.circuit.operations(trained.angles)
    np.testing.assert_allclose(braket.ideal(operations, 5), trained.probabilities(), atol=1e-6)


@pytest.mark.parametrize("native", ["cz", "iswap"])
def test_the_emulator_accepts_the_exported_circuit_and_without_noise_agrees(trained: Born, native: Native) -> None:
    chip, emulated = emulator(native, one_qubit=1.0, two_qubit=1.0, readout=1.0)
    circuit = compiled(trained.circuit.operations(trained.angles), 5, chip, np.random.default_rng(0))
    emulated.emulator.validate(braket.verbatim(circuit))
    np.testing.assert_allclose(emulated.law(circuit), trained.probabilities(), atol=1e-6)


def test_the_emulator_itself_runs_it(trained: Born) -> None:
    chip, emulated = emulator()
    circuit = compiled(trained.circuit.operations(trained.angles), 5, chip, np.random.default_rng(0))
    read = emulated.emulator.run(braket.verbatim(circuit), shots=20_000).result()
    column = [list(read.measured_qubits).index(qubit) for qubit in circuit.measured]
    words = np.asarray(read.measurements)[:, column] @ (1 << np.arange(4, -1, -1))
    seen = np.bincount(words, minlength=32) / 20_000
    assert 0.5 * np.abs(seen - emulated.law(circuit)).sum() < 0.03


@pytest.mark.parametrize(
    ("gate", "why"),
    [
        (qml.RY(0.3, wires=0), "Ry is not a native gate"),
        (qml.RX(0.3, wires=0), "RX by multiples of pi/2 only"),
        (qml.ISWAP(wires=[0, 1]), "ISwap is not a native gate"),
        (qml.CZ(wires=[0, 4]), "0 is not connected to (qubit )?4|not connected"),
    ],
)
def test_the_emulator_refuses(gate: Any, why: str) -> None:
    chip, emulated = emulator()
    with pytest.raises(CircuitError, match=why):
        emulated.law(Compiled((gate,), (0, 1), chip))


def test_the_emulator_refuses_what_is_not_verbatim() -> None:
    with pytest.raises(EmulatorValidationError, match="must have a verbatim box"):
        emulator()[1].emulator.validate(Circuit().rx(0, 0.3).measure(0))


def test_more_noise_is_farther_and_unfolding_helps(trained: Born, table: PairCounts) -> None:
    def off(**keys: Any) -> float:
        return distance(on(trained, **keys).sample(6000, np.random.default_rng(0)), table)

    exact = off(backend="exact")
    emulated, plain = off(backend="emulator"), off(backend="emulator", mitigate_readout=False)
    worse = off(backend="emulator", two_qubit_fidelity=0.95)
    assert exact < 0.015 < emulated < plain
    assert emulated < 0.04 < worse


def test_one_correction_takes_errors_out(table: PairCounts) -> None:
    def off(corrections: int) -> float:
        config = BornConfig(backend="emulator", two_qubit_fidelity=0.97, corrections=corrections)
        machine = Born.of(SynthConfig(generator="born", born=config)).fit(table, np.random.default_rng(0))
        return distance(machine.sample(6000, np.random.default_rng(1)), table)

    assert off(1) < 0.7 * off(0)


@pytest.mark.parametrize("backend", ["braket.local.qubit", "braket_dm", "emulator"])
def test_same_seed_same_samples(trained: Born, backend: str) -> None:
    machine = on(trained, backend=backend)
    first, second = (machine.sample(40, np.random.default_rng(5)) for _ in range(2))
    assert np.array_equal(first, second)
    assert first.shape == (40, 5)
    assert not np.array_equal(first, machine.sample(40, np.random.default_rng(6)))
    assert machine.describe()["backend"]["name"] == backend
    assert machine.describe()["backend"]["real_device"] is False


def test_a_device_of_ones_own(trained: Born, tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(document(square(2, 4), spread=np.random.default_rng(0))), encoding="utf-8")
    machine = on(trained, backend="emulator", calibration=str(file))
    assert machine.sample(10, np.random.default_rng(0)).shape == (10, 5)
    about = machine.describe()["backend"]
    assert about["device"] == "mine"
    assert set(about["qubits"]) <= set(range(8))


def test_the_sample_of_a_calibration_file_is_made_up_and_says_so() -> None:
    file = Path(__file__).parents[3] / "deployments/examples/rigetti/synthetic-calibration.json"
    found = json.loads(file.read_text(encoding="utf-8"))
    assert found == document(square(4, 4), spread=np.random.default_rng(0))
    assert found["service"]["deviceDocumentation"]["summary"].startswith("SYNTHETIC")


def test_a_made_up_device_says_so() -> None:
    assert document(square(1, 2))["service"]["deviceDocumentation"]["summary"] == LABEL
    assert LABEL.startswith("SYNTHETIC")


def test_too_many_qubits_for_a_density_matrix() -> None:
    chip, emulated = emulator()
    with pytest.raises(CircuitError, match="density matrix of 13 qubits"):
        emulated.law(Compiled((), tuple(range(13)), chip))


def test_amazons_client_runs_it_to_the_network(trained: Born, monkeypatch: pytest.MonkeyPatch, aws: Any) -> None:
    session, service = aws(document(square(3, 3)))
    real = braket.aws_device
    monkeypatch.setattr(backends.braket, "aws_device", lambda arn: real(arn, session))
    machine = on(trained, backend="braket", calibration_shots=500)
    with counted_by(meter := Meter("braket", "test", caps=Caps(shots=10_000))):
        bits = machine.sample(3000, np.random.default_rng(0))
    law = np.bincount(bits @ (1 << np.arange(4, -1, -1)), minlength=32) / 3000
    assert 0.5 * np.abs(law - trained.probabilities()).sum() < 0.05
    assert service.shots == [3000, 500, 500]
    assert (meter.spent().circuits, meter.spent().shots) == (3, 4000)
    request = service.requests[0]
    assert request["deviceArn"] == braket.ARN
    source = json.loads(request["action"])["source"]
    assert "#pragma braket verbatim" in source
    assert "cz $" in source
    assert json.loads(request["deviceParameters"])["paradigmParameters"]["disableQubitRewiring"] is True
    about = machine.describe()["backend"]
    assert (about["device"], about["real_device"]) == ("Cepheus-1-108Q", True)


def test_nothing_is_sent_past_the_cap(trained: Born, monkeypatch: pytest.MonkeyPatch, aws: Any) -> None:
    session, service = aws(document(square(3, 3)))
    real = braket.aws_device
    monkeypatch.setattr(backends.braket, "aws_device", lambda arn: real(arn, session))
    config = SynthConfig(most_shots=3400, born=BornConfig(backend="braket", calibration_shots=500))
    machine = Born.restore(config, trained.state())
    with pytest.raises(SpendingCapReached, match=r"synth\.most_shots"):
        machine.sample(3000, np.random.default_rng(0))
    assert service.shots == [3000]


def test_all_classes_are_on_one_account(monkeypatch: pytest.MonkeyPatch, aws: Any, tmp_path: Path) -> None:
    session, service = aws(document(square(2, 2)))
    real = braket.aws_device
    monkeypatch.setattr(backends.braket, "aws_device", lambda arn: real(arn, session))
    bits = np.random.default_rng(0).integers(0, 2, (200, 3)).astype(np.uint8)
    release = Release.exact(bits, ["a", "b", "target"], ["target"], np.array([[0], [1]]))
    born = BornConfig(backend="braket", calibration_shots=50, steps=1)
    config = SynthConfig(generator="born", most_shots=350, born=born)
    rng = np.random.default_rng(0)
    machine = Synthesizer.fit(config, release, rng, account=tmp_path / "spending.db")
    assert machine.sample(100, rng).shape == (100, 3)
    assert sum(service.shots) == 300
    with pytest.raises(SpendingCapReached, match=r"synth\.most_shots"):
        machine.sample(100, rng)
    assert sum(service.shots) <= 350


def test_more_shots_than_a_task_takes_are_several_tasks(aws: Any) -> None:
    paper = document(square(1, 2))
    paper["service"]["shotsRange"] = [10, 100]
    session, service = aws(paper)
    device = braket.Device(braket.aws_device(braket.ARN, session), 60)
    circuit = compiled([qml.RY(1.0, wires=0)], 2, chip_of(device.document, "x"), np.random.default_rng(0))
    asked: list[int] = []
    assert device.run(circuit, 205, asked.append).shape == (205, 2)
    assert service.shots == asked == [100, 95, 10]
    assert device.run(circuit, 3, asked.append).shape == (3, 2)
    assert asked[-1] == 10, "as few as the device takes"


def test_pennylanes_plugin_runs_the_exported_circuit_too(trained: Born, aws: Any) -> None:
    session, service = aws(document(square(3, 3)))
    device = qml.device("braket.aws.qubit", device_arn=braket.ARN, wires=5, aws_session=session)

    @qml.set_shots(4000)
    @qml.qnode(device)
    def node() -> object:
        trained.circuit.function(trained.angles)()
        return qml.probs(wires=range(5))

    assert 0.5 * np.abs(np.asarray(node()) - trained.probabilities()).sum() < 0.05
    assert service.shots == [4000]


def test_without_credentials_one_clear_error(trained: Born, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="give AWS credentials with access to Amazon Braket"):
        on(trained, backend="braket").sample(10, np.random.default_rng(0))


def test_without_the_extra_one_clear_error(trained: Born, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "braket.circuits", None)
    with pytest.raises(MissingExtra, match=r"braket is not installed; install it with: pip install 'qfed\[rigetti\]'"):
        on(trained, backend="emulator").sample(10, np.random.default_rng(0))


def test_the_exact_backend_needs_no_vendor() -> None:
    code = (
        "import sys\n"
        "sys.modules['braket'] = sys.modules['pyquil'] = None\n"
        "import numpy as np\n"
        "from qfed.config import SynthConfig\n"
        "from qfed.generative.born import Born\n"
        "from qfed.generative.statistics import PairCounts\n"
        "bits = np.random.default_rng(0).integers(0, 2, (50, 3)).astype(np.uint8)\n"
        "born = Born.of(SynthConfig()).fit(PairCounts.exact(bits), np.random.default_rng(0))\n"
        "assert born.sample(5, np.random.default_rng(0)).shape == (5, 3)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
