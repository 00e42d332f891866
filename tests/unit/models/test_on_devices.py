"""Every model of the library runs on any PennyLane device by configuration, and says what it cannot."""

from __future__ import annotations

import pennylane as qml
import pytest
import torch

from qfed.config import ARCHITECTURES, ModelConfig, NoiseConfig, QuantumConfig
from qfed.errors import CircuitError, ConfigError, MissingExtra, SpendingCapReached
from qfed.models import build
from qfed.quantum.device import DeviceCircuit
from qfed.quantum.layer import QuantumLayer
from qfed.quantum.spending import Caps, Meter, Spent, counted_by

INPUTS = 64


def model_of(architecture: str, quantum: QuantumConfig | None = None, **fields: object) -> torch.nn.Module:
    return build(ModelConfig(architecture=architecture, **fields), INPUTS, 3, 1, quantum)


def records(count: int) -> torch.Tensor:
    return torch.rand(count, INPUTS, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("device", ["default.qubit", "lightning.qubit"])
@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_a_device_gives_what_the_kernel_gives(architecture: str, device: str) -> None:
    exact, there = model_of(architecture), model_of(architecture, QuantumConfig(device=device))
    runners = [m.runner(n) for m in there.modules() if isinstance(m, QuantumLayer) for n in m.compiled_for]
    assert runners
    assert all(isinstance(runner, DeviceCircuit) for runner in runners)  # it is no kernel in disguise
    x = records(2)
    meter = Meter(device)
    with torch.no_grad(), counted_by(meter):
        found = there(x)
    assert meter.spent().circuits >= 2
    assert torch.allclose(found, exact(x), atol=1e-5)


def test_gradients_on_a_device_are_the_kernels() -> None:
    exact, there = (
        model_of("reuploading", wires=2),
        model_of("reuploading", QuantumConfig(device="default.qubit"), wires=2),
    )
    for model in (exact, there):
        model(records(2)).square().sum().backward()
    for mine, theirs in zip(there.parameters(), exact.parameters(), strict=True):
        assert torch.allclose(mine.grad, theirs.grad, atol=1e-5)


def test_building_a_model_runs_nothing_on_the_device() -> None:
    with counted_by(Meter("default.qubit", caps=Caps(shots=0))):
        for architecture in ARCHITECTURES:
            model_of(architecture, QuantumConfig(device="default.qubit", shots=10))


def test_shots_are_counted_and_capped_before_they_are_spent() -> None:
    model = model_of("reuploading", QuantumConfig(device="default.qubit", shots=50))
    meter = Meter("default.qubit", caps=Caps(shots=500))
    with torch.no_grad(), counted_by(meter):
        first = model(records(4))
        with pytest.raises(SpendingCapReached):
            model(records(7))
    assert meter.spent() == Spent(4, 200)
    assert torch.equal(first, model_of("reuploading", QuantumConfig(device="default.qubit", shots=50))(records(4)))


def test_a_cap_in_the_middle_of_a_step_stops_before_the_submission_that_would_pass_it() -> None:
    """Counted twice: by the meter, and by the device itself, which PennyLane's tracker watches."""
    layer = QuantumLayer(_by_first_axis, {"w": (2,)}, wires=2)
    layer.run_on(QuantumConfig(device="default.qubit", shots=10), 1)
    runner = layer.runner(2)
    x, meter = torch.rand(6, 2), Meter("default.qubit", caps=Caps(shots=155))
    with counted_by(meter), qml.Tracker(runner._device) as seen:  # type: ignore[union-attr]
        layer(x)
        assert meter.spent() == Spent(6, 60)
        # The gradients of six records come record by record: a batch of circuits each, of which only whole ones fit.
        with pytest.raises(SpendingCapReached, match="nothing was submitted"):
            layer.per_sample(x)[1](torch.ones(6, 2))
    assert 60 < meter.spent().shots <= 155
    assert seen.totals["shots"] == meter.spent().shots, "what was refused never reached the device"


def test_broadcasting_and_single_circuits_agree() -> None:
    layer = QuantumLayer(_by_first_axis, {"w": (2,)}, wires=2)
    whole = QuantumLayer(_by_last_axis, {"w": (2,)}, wires=2)
    whole.load_state_dict(layer.state_dict())
    x = torch.rand(2, 2)  # as many records as features, so that x[0] could be taken for a feature
    want = layer(x)
    for each in (layer, whole):
        each.run_on(QuantumConfig(device="default.qubit"), 1)
        meter = Meter("default.qubit")
        with counted_by(meter):
            assert torch.allclose(each(x), want, atol=1e-5)
        assert meter.spent().circuits == 2


def _by_first_axis(inputs, w):
    import pennylane as qml

    for wire in range(2):
        qml.RX(inputs[wire] + w[wire], wires=wire)
    return [qml.expval(qml.Z(0)), qml.expval(qml.X(1))]


def _by_last_axis(inputs, w):
    import pennylane as qml

    for wire in range(2):
        qml.RX(inputs[..., wire] + w[wire], wires=wire)
    return [qml.expval(qml.Z(0)), qml.expval(qml.X(1))]


def test_readout_error_shrinks_expectations_as_it_must() -> None:
    """Each bit is read wrong with probability r: <Z> becomes (1 - 2 r) <Z>, in whatever basis."""
    layer = QuantumLayer(_by_last_axis, {"w": (2,)}, wires=2)
    x = torch.rand(3, 2)
    want = layer(x) * (1 - 2 * 0.1)
    layer.run_on(QuantumConfig(device="default.mixed", noise=NoiseConfig(readout_error=0.1)), 1)
    assert torch.allclose(layer(x), want, atol=1e-5)


def test_gate_noise_is_that_of_its_rates() -> None:
    """One RX on |0>: depolarising (p) shrinks <Z> by 1 - 4 p / 3, damping (g) moves it to g + (1 - g) <Z>."""

    def one_gate(inputs, w):
        import pennylane as qml

        qml.RX(inputs[..., 0] + w, wires=0)
        return qml.expval(qml.Z(0))

    layer = QuantumLayer(one_gate, {"w": 1}, wires=1)
    x = torch.rand(3, 1)
    exact = layer(x)
    p, g = 0.09, 0.2
    noise = NoiseConfig(depolarizing=p, amplitude_damping=g)
    layer.run_on(QuantumConfig(device="default.mixed", noise=noise), 1)
    assert torch.allclose(layer(x), g + (1 - g) * (1 - 4 * p / 3) * exact, atol=1e-5)


def test_noise_aware_gradients_see_the_noise() -> None:
    layer = QuantumLayer(_by_last_axis, {"w": (2,)}, wires=2)
    x = torch.rand(3, 2)
    layer(x).sum().backward()
    exact = layer.w.grad.clone()
    layer.w.grad = None
    layer.run_on(QuantumConfig(device="default.mixed", noise=NoiseConfig(readout_error=0.1)), 1)
    layer(x).sum().backward()
    assert torch.allclose(layer.w.grad, 0.8 * exact, atol=1e-5)


@pytest.mark.parametrize(
    ("device", "error", "words"),
    [
        ("strawberryfields.fock", ConfigError, "no plugin that is installed here brings it"),
        ("lightning.nothing", ConfigError, "no plugin"),
    ],
)
def test_a_device_that_is_not_installed(device: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        model_of("reuploading", QuantumConfig(device=device, shots=10))


def test_a_missing_plugin_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import pennylane as qml

    def absent(name: str, **_: object) -> None:
        raise qml.exceptions.DeviceError(f"Device {name} does not exist.")

    monkeypatch.setattr(qml, "device", absent)
    for device, extra in (("qiskit.aer", "ibm"), ("ionq.simulator", "ionq"), ("braket.local.qubit", "rigetti")):
        with pytest.raises(MissingExtra, match=rf"qfed\[{extra}\]"):
            model_of("reuploading", QuantumConfig(device=device, shots=10))


def test_options_that_the_device_does_not_take() -> None:
    with pytest.raises(ConfigError, match=r"options given \(colour\): TypeError"):
        model_of("reuploading", QuantumConfig(device="default.qubit", options={"colour": "blue"}))


def test_what_needs_shots_is_refused_with_the_device_named() -> None:
    def sampled(inputs, w):
        import pennylane as qml

        qml.RX(inputs[..., 0] + w, wires=0)
        return qml.sample(wires=0)

    broken = QuantumLayer(sampled, {"w": 1}, wires=1)
    broken.run_on(QuantumConfig(device="default.qubit"), 1)
    with pytest.raises(CircuitError, match=r"device=default\.qubit cannot run this circuit"):
        broken(torch.rand(2, 1))
