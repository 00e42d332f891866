"""Every gate, embedding and measurement against default.qubit, values and gradients."""

import math

import numpy as np
import pennylane as qml
import pytest
import torch

from qfed.errors import CircuitError
from qfed.quantum import QuantumLayer

WIRES = 4
_rng = np.random.default_rng(0)


def _unitary(wires):
    return np.linalg.qr(_rng.normal(size=(2**wires,) * 2) + 1j * _rng.normal(size=(2**wires,) * 2))[0]


ONE, TWO, FOUR = _unitary(1), _unitary(2), _unitary(3)

# name -> a call that applies the gate with angles a, b, c
GATES = {
    **{f"R{p}": (lambda a, b, c, p=p: getattr(qml, f"R{p}")(a, wires=1)) for p in "XYZ"},
    "Rot": lambda a, b, c: qml.Rot(a, b, c, wires=2),
    "PhaseShift": lambda a, b, c: qml.PhaseShift(a, wires=1),
    "U1": lambda a, b, c: qml.U1(a, wires=1),
    "U2": lambda a, b, c: qml.U2(a, b, wires=1),
    "U3": lambda a, b, c: qml.U3(a, b, c, wires=1),
    **{f"CR{p}": (lambda a, b, c, p=p: getattr(qml, f"CR{p}")(a, wires=[2, 0])) for p in "XYZ"},
    "CRot": lambda a, b, c: qml.CRot(a, b, c, wires=[0, 3]),
    "ControlledPhaseShift": lambda a, b, c: qml.ControlledPhaseShift(a, wires=[1, 3]),
    "CPhaseShift00": lambda a, b, c: qml.CPhaseShift00(a, wires=[1, 3]),
    "CPhaseShift10": lambda a, b, c: qml.CPhaseShift10(a, wires=[1, 3]),
    **{f"Ising{p}": (lambda a, b, c, p=p: getattr(qml, f"Ising{p}")(a, wires=[3, 1])) for p in ("XX", "YY", "ZZ")},
    "IsingXY": lambda a, b, c: qml.IsingXY(a, wires=[3, 1]),
    "MultiRZ": lambda a, b, c: qml.MultiRZ(a, wires=[0, 1, 3]),
    "PauliRot": lambda a, b, c: qml.PauliRot(a, "XIYZ", wires=[3, 0, 1, 2]),
    "PauliRot of identities": lambda a, b, c: qml.PauliRot(a, "II", wires=[3, 0]),
    "SingleExcitation": lambda a, b, c: qml.SingleExcitation(a, wires=[0, 2]),
    "DoubleExcitation": lambda a, b, c: qml.DoubleExcitation(a, wires=[0, 1, 2, 3]),
    "PSWAP": lambda a, b, c: qml.PSWAP(a, wires=[0, 1]),
    "adjoint of Rot": lambda a, b, c: qml.adjoint(qml.Rot(a, b, c, wires=2)),
    "adjoint of S": lambda a, b, c: qml.adjoint(qml.S(1)),
    "adjoint of T": lambda a, b, c: qml.adjoint(qml.T(1)),
    "doubly controlled RY": lambda a, b, c: qml.ctrl(qml.RY(a, wires=0), control=[1, 2]),
    "controlled on zero": lambda a, b, c: qml.ctrl(qml.RX(a, wires=0), control=[3], control_values=[0]),
    "power": lambda a, b, c: qml.pow(qml.RX(a, wires=0), 2),
    **{n: (lambda a, b, c, n=n: getattr(qml, n)(wires=1)) for n in ("X", "Y", "Z", "Hadamard", "S", "T", "SX")},
    **{n: (lambda a, b, c, n=n: getattr(qml, n)(wires=[2, 0])) for n in ("CNOT", "CZ", "CY", "CH", "SWAP", "ISWAP")},
    "SISWAP": lambda a, b, c: qml.SISWAP(wires=[1, 2]),
    "ECR": lambda a, b, c: qml.ECR(wires=[1, 2]),
    "Toffoli": lambda a, b, c: qml.Toffoli(wires=[3, 1, 0]),
    "CCZ": lambda a, b, c: qml.CCZ(wires=[3, 1, 0]),
    "CSWAP": lambda a, b, c: qml.CSWAP(wires=[3, 1, 0]),
    "MultiControlledX": lambda a, b, c: qml.MultiControlledX(wires=[0, 1, 2, 3]),
    "QFT": lambda a, b, c: qml.QFT(wires=[0, 1, 2]),
    "Identity": lambda a, b, c: qml.Identity(wires=1),
    "GlobalPhase": lambda a, b, c: qml.GlobalPhase(0.3),
    "Barrier": lambda a, b, c: qml.Barrier(wires=[0, 1]),
    "QubitUnitary on 1": lambda a, b, c: qml.QubitUnitary(ONE, wires=2),
    "QubitUnitary on 2": lambda a, b, c: qml.QubitUnitary(TWO, wires=[2, 0]),
    "QubitUnitary on 3": lambda a, b, c: qml.QubitUnitary(FOUR, wires=[2, 0, 3]),
    "DiagonalQubitUnitary": lambda a, b, c: qml.DiagonalQubitUnitary(np.exp(1j * np.arange(4)), wires=[1, 2]),
    "BasisState": lambda a, b, c: None,
    "ControlledQubitUnitary": lambda a, b, c: qml.ControlledQubitUnitary(ONE, wires=[3, 1, 0]),
    "adjoint of QubitUnitary": lambda a, b, c: qml.adjoint(qml.QubitUnitary(TWO, wires=[1, 2])),
    "adjoint of CRot": lambda a, b, c: qml.adjoint(qml.CRot(a, b, c, wires=[0, 3])),
    "adjoint of a function": lambda a, b, c: qml.adjoint(lambda: [qml.RX(a, wires=0), qml.CNOT(wires=[0, 2])])(),
    "controlled Rot": lambda a, b, c: qml.ctrl(qml.Rot(a, b, c, wires=0), control=[2]),
    "controlled PauliRot": lambda a, b, c: qml.ctrl(qml.PauliRot(a, "XY", wires=[0, 1]), control=[3]),
    "a half power": lambda a, b, c: qml.pow(qml.X(1), 0.5),
    "a negative power": lambda a, b, c: qml.pow(qml.RY(a, wires=1), -3),
    "evolve": lambda a, b, c: qml.evolve(qml.Y(0) @ qml.X(3), 0.4),
    "Permute": lambda a, b, c: qml.Permute([2, 0, 1, 3], wires=range(WIRES)),
    "OrbitalRotation": lambda a, b, c: qml.OrbitalRotation(a, wires=[0, 1, 2, 3]),
    "FermionicSWAP": lambda a, b, c: qml.FermionicSWAP(a, wires=[0, 1]),
    "ApproxTimeEvolution": lambda a, b, c: qml.ApproxTimeEvolution(
        qml.Hamiltonian([0.4, -0.7], [qml.Z(0) @ qml.Z(1), qml.X(2)]), 0.6, 2
    ),
    "exp of a word": lambda a, b, c: qml.exp(qml.X(0) @ qml.Z(2), -0.35j),
}
# PennyLane's own torch gradient of these fails or is undefined; only values are compared
VALUES_ONLY = {"OrbitalRotation", "FermionicSWAP", "IsingXY", "SingleExcitation", "DoubleExcitation", "PSWAP"}

OBSERVABLES = {
    "X": lambda: qml.expval(qml.X(2)),
    "YXZ": lambda: qml.expval(qml.Y(0) @ qml.X(1) @ qml.Z(3)),
    "sum": lambda: qml.expval(0.3 * qml.Z(0) - 1.2 * qml.X(1) @ qml.Y(2) + qml.Y(3)),
    "Hamiltonian": lambda: qml.expval(qml.Hamiltonian([0.5, -0.2], [qml.Z(0) @ qml.Z(1), qml.X(3)])),
    "Hermitian": lambda: qml.expval(qml.Hermitian(TWO + TWO.conj().T, wires=[1, 3])),
    "LinearCombination": lambda: qml.expval(qml.ops.LinearCombination([0.5, -0.2], [qml.Z(0) @ qml.Y(1), qml.X(3)])),
    "projector on a state": lambda: qml.expval(qml.Projector(np.array([0.6, 0.8j]), wires=[1])),
    "var of a projector": lambda: qml.var(qml.Projector([1, 0], wires=[0, 2])),
    "Projector": lambda: qml.expval(qml.Projector([1, 0], wires=[0, 2])),
    "Hadamard": lambda: qml.expval(qml.Hadamard(1)),
    "Identity": lambda: qml.expval(qml.Identity(1)),
    "var of X": lambda: qml.var(qml.X(1)),
    "var of a sum": lambda: qml.var(0.3 * qml.Z(0) - 1.2 * qml.X(1) @ qml.Y(2) + qml.Y(0)),
    "probs of one": lambda: qml.probs(wires=1),
    "probs in another order": lambda: qml.probs(wires=[3, 0, 2]),
    "all probs": lambda: qml.probs(wires=range(WIRES)),
}

EMBEDDINGS = {
    "angle X": lambda x: qml.AngleEmbedding(x, wires=range(WIRES)),
    "angle Y": lambda x: qml.AngleEmbedding(x, wires=range(WIRES), rotation="Y"),
    "angle Z": lambda x: qml.AngleEmbedding(x, wires=range(WIRES), rotation="Z"),
    "iqp": lambda x: qml.IQPEmbedding(x, wires=range(WIRES)),
    "iqp on a ring": lambda x: qml.IQPEmbedding(x, wires=range(WIRES), pattern=[[0, 1], [2, 3], [3, 0]]),
    "amplitudes padded": lambda x: qml.AmplitudeEmbedding(x, wires=range(WIRES), pad_with=0.2, normalize=True),
    "amplitudes exact": lambda x: qml.AmplitudeEmbedding(x, wires=[1, 3], normalize=True),
    "amplitudes of a scaled slice": lambda x: qml.AmplitudeEmbedding(2 * x[..., 1:3], wires=[1], normalize=True),
    "iqp three times": lambda x: qml.IQPEmbedding(x, wires=range(WIRES), n_repeats=3),
    "amplitudes padded with 0": lambda x: qml.AmplitudeEmbedding(x, wires=range(3), pad_with=0.0, normalize=True),
    "QAOA": lambda x: qml.QAOAEmbedding(x, torch.full((1, 2 * WIRES), 0.3, dtype=torch.float64), wires=range(WIRES)),
    "scaled": lambda x: qml.AngleEmbedding(math.pi * x - 0.3, wires=range(WIRES)),
    "arcsin of inputs within -1 and 1": lambda x: qml.AngleEmbedding(
        torch.arcsin(x.clamp(-0.95, 0.95)), wires=range(WIRES), rotation="Y"
    ),
    "square root": lambda x: qml.AngleEmbedding(torch.sqrt(x.abs()), wires=range(WIRES), rotation="Y"),
    "arccos": lambda x: qml.AngleEmbedding(torch.arccos(torch.tanh(x)), wires=range(WIRES), rotation="Y"),
}

TEMPLATES = {
    "StronglyEntanglingLayers": ((2, WIRES, 3), lambda w: qml.StronglyEntanglingLayers(w, wires=range(WIRES))),
    "BasicEntanglerLayers": ((2, WIRES), lambda w: qml.BasicEntanglerLayers(w, wires=range(WIRES), rotation=qml.RY)),
    "StronglyEntanglingLayers with ranges and CZ": (
        (3, WIRES, 3),
        lambda w: qml.StronglyEntanglingLayers(w, wires=range(WIRES), ranges=[3, 1, 2], imprimitive=qml.CZ),
    ),
    "BasicEntanglerLayers with RZ": (
        (2, WIRES),
        lambda w: qml.BasicEntanglerLayers(w, wires=range(WIRES), rotation=qml.RZ),
    ),
    "SimplifiedTwoDesign of trained angles": (
        (2 * WIRES - 1, 2),
        lambda w: qml.SimplifiedTwoDesign(w[:2].reshape(-1), w[2:5][None], wires=range(WIRES)),
    ),
    "SimplifiedTwoDesign": (
        (2, WIRES - 1, 2),
        lambda w: qml.SimplifiedTwoDesign(torch.full((WIRES,), 0.4, dtype=torch.float64), w, wires=range(WIRES)),
    ),
    "RandomLayers": ((2, 3), lambda w: qml.RandomLayers(w, wires=range(WIRES), seed=3)),
    "ParticleConservingU2": (
        (1, 2 * WIRES - 1),
        lambda w: qml.ParticleConservingU2(w, wires=range(WIRES), init_state=np.array([1, 1, 0, 0])),
    ),
}


def compare(body, shapes, features=3, batch=5, gradients=True, atol=1e-10):
    """QuantumLayer against one call of default.qubit a record."""
    layer = QuantumLayer(body, shapes, wires=WIRES).double()
    node = qml.QNode(body, qml.device("default.qubit", wires=WIRES), interface="torch", diff_method="backprop")
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(batch, features, dtype=torch.float64, generator=generator).requires_grad_()
    weights = dict(layer.named_parameters())

    def reference(row):
        found = node(row, **weights)
        return found if isinstance(found, torch.Tensor) else torch.hstack([f.reshape(-1) for f in found])

    got = layer(x)
    if not gradients:
        want = torch.stack([reference(row.detach()).detach() for row in x])
        assert torch.allclose(got, want.reshape(got.shape).to(got), atol=atol, rtol=0)
        return
    want = torch.stack([reference(row) for row in x]).reshape(got.shape)
    assert torch.allclose(got, want.to(got), atol=atol, rtol=0)
    cotangent = torch.randn(got.shape, dtype=torch.float64, generator=generator)
    leaves = [x, *weights.values()]
    found = torch.autograd.grad(got, leaves, cotangent, allow_unused=True, materialize_grads=True)
    if want.requires_grad:
        wanted = torch.autograd.grad(want, leaves, cotangent, allow_unused=True, materialize_grads=True)
        for a, b in zip(wanted, found, strict=True):
            assert torch.allclose(a, b, atol=atol, rtol=0)


def _before(inputs, w):
    for i in range(WIRES):
        qml.Rot(*w[i], wires=i)
    for i in range(WIRES - 1):
        qml.CNOT(wires=[i, i + 1])


@pytest.mark.parametrize("measured", ["words", pytest.param("probs", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", GATES)
def test_gate(name, measured):
    def body(inputs, w, angles):
        if name == "BasisState":
            qml.BasisState(np.array([1, 0, 1, 1]), wires=range(WIRES))
        _before(inputs, w)
        GATES[name](inputs[..., 0], angles[0], angles[1] + 2 * inputs[..., 1])
        _before(inputs, w)
        if measured == "probs":
            return qml.probs(wires=[1, 3])
        return [qml.expval(qml.Z(i)) for i in range(WIRES)] + [qml.expval(qml.X(0) @ qml.Y(1) @ qml.Z(2))]

    values_only = name in VALUES_ONLY
    if values_only:

        def fixed(inputs, w):
            _before(inputs, w)
            GATES[name](0.37, 0.2, 0.1)
            _before(inputs, w)
            return [qml.expval(qml.Z(i)) for i in range(WIRES)] + [qml.expval(qml.X(0) @ qml.Y(1) @ qml.Z(2))]

        compare(fixed, {"w": (WIRES, 3)})
    compare(body, {"w": (WIRES, 3), "angles": (2,)}, gradients=not values_only)


@pytest.mark.parametrize("name", OBSERVABLES)
def test_measurement(name):
    def body(inputs, w):
        qml.AngleEmbedding(inputs, wires=range(WIRES))
        qml.StronglyEntanglingLayers(w, wires=range(WIRES))
        return OBSERVABLES[name]()

    compare(body, {"w": (2, WIRES, 3)})


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_embedding(name):
    def body(inputs, w):
        EMBEDDINGS[name](inputs)
        qml.StronglyEntanglingLayers(w, wires=range(WIRES))
        return [qml.expval(qml.Z(i)) for i in range(WIRES)]

    compare(body, {"w": (2, WIRES, 3)}, features=WIRES)


@pytest.mark.parametrize("name", TEMPLATES)
def test_template(name):
    shape, template = TEMPLATES[name]

    def body(inputs, w):
        qml.AngleEmbedding(inputs, wires=range(WIRES))
        template(w)
        return [qml.expval(qml.Z(i)) for i in range(WIRES)]

    compare(body, {"w": shape})


def test_functions_that_are_defined_on_a_part_of_the_line():
    def body(inputs, w):
        for i in range(2):
            qml.RY(torch.arcsin(inputs[..., i]), wires=i)
            qml.RZ(torch.arccos(inputs[..., i] ** 2) + w[i], wires=i)
            qml.RY(torch.sqrt(inputs[..., i] + 0.05), wires=i)
        qml.CNOT(wires=[0, 1])
        return [qml.expval(qml.X(0)), qml.expval(qml.Z(1))]

    layer = QuantumLayer(body, {"w": (2,)}, wires=2).double()
    node = qml.QNode(body, qml.device("default.qubit", wires=2))
    x = torch.rand(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(layer(x), torch.stack([torch.stack(node(row, layer.w)) for row in x]), atol=1e-10)


def test_amplitudes_that_the_user_normalises():
    def body(inputs, w):
        qml.AmplitudeEmbedding(inputs, wires=range(2))
        qml.BasicEntanglerLayers(w, wires=range(2))
        return qml.expval(qml.Z(0))

    layer = QuantumLayer(body, {"w": (1, 2)}, wires=2).double()
    node = qml.QNode(body, qml.device("default.qubit", wires=2))
    x = torch.nn.functional.normalize(torch.randn(6, 4, dtype=torch.float64), dim=1)
    assert torch.allclose(layer(x), torch.stack([node(row, layer.w) for row in x]), atol=1e-10)
    x[4] *= 1.5
    with pytest.raises(CircuitError, match=r"norm=1\.5 in record 4"):
        layer(x)


def test_a_state_prepared_late_is_refused():
    def body(inputs, w):
        qml.RX(w[0], wires=0)
        qml.AmplitudeEmbedding(inputs, wires=range(2), normalize=True)
        return qml.expval(qml.Z(0))

    with pytest.raises(CircuitError, match="before every gate"):
        QuantumLayer(body, {"w": (2,)}, wires=2)(torch.rand(2, 4))


@pytest.mark.parametrize("measurement", [qml.state, lambda: qml.sample(wires=0), lambda: qml.vn_entropy(wires=[0])])
def test_other_measurements_are_refused_by_name(measurement):
    def body(inputs, w):
        qml.AngleEmbedding(inputs, wires=range(2))
        qml.RX(w[0], wires=0)
        return measurement()

    with pytest.raises(CircuitError, match=r"measurement=(State|Sample|VnEntropy)MP"):
        QuantumLayer(body, {"w": (2,)}, wires=2)(torch.rand(2, 2))
