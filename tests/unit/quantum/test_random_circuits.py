"""Random circuits against default.qubit in float64: values, gradients, per-sample gradients."""

import numpy as np
import pennylane as qml
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qfed.quantum import QuantumLayer, torch_path
from qfed.quantum.functional import Sweep
from qfed.quantum.persample import grad_sample

# default.qubit multiplies torch tensors by NumPy scalars
pytestmark = pytest.mark.filterwarnings("ignore:__array_wrap__ must accept context:DeprecationWarning")
ROTATIONS = ["RX", "RY", "RZ", "PhaseShift", "U1"]
FIXED = ["X", "Y", "Z", "S", "T", "SX", "Hadamard"]
PAIRS = ["CNOT", "CZ", "CY", "SWAP", "ISWAP"]
TURNED_PAIRS = ["CRX", "CRY", "CRZ", "IsingXX", "IsingYY", "IsingZZ", "ControlledPhaseShift"]
FEATURES, WEIGHTS = 3, 6


def random_circuit(seed):
    """A quantum function drawn from `seed`, with its number of wires."""
    rng = np.random.default_rng(seed)
    wires = int(rng.integers(1, 7))
    plan = []
    for _ in range(int(rng.integers(1, 24))):
        kind = rng.choice(["rotation", "rot", "fixed", "pair", "turned pair", "word"]) if wires > 1 else "rotation"
        where = [int(w) for w in rng.permutation(wires)]
        source = (
            rng.choice(["input", "weight", "both", "constant"]),
            int(rng.integers(FEATURES)),
            rng.integers(WEIGHTS),
        )
        plan.append((kind, where, source, float(rng.normal()), rng.integers(1 << 30)))
    prepared = rng.random() < 0.2
    measured = rng.choice(["words", "probs", "mixed"])
    letters = ["".join(rng.choice(list("IXYZ"), wires)) for _ in range(3)]

    def angle(source, scale, inputs, w):
        kind, i, j = source
        parts = {"input": scale * inputs[..., i], "weight": w[j], "both": inputs[..., i] - scale * w[j]}
        return parts.get(kind, scale)

    def word(text):
        factors = [getattr(qml, a)(i) for i, a in enumerate(text) if a != "I"]
        return qml.prod(*factors) if len(factors) > 1 else factors[0] if factors else qml.Identity(0)

    def function(inputs, w):
        if prepared:
            qml.AmplitudeEmbedding(inputs[..., : 2**wires], wires=range(wires), normalize=True, pad_with=0.5)
        for kind, where, source, scale, pick in plan:
            a = angle(source, scale, inputs, w)
            if kind == "rotation":
                getattr(qml, ROTATIONS[pick % len(ROTATIONS)])(a, wires=where[0])
            elif kind == "rot":
                qml.Rot(a, w[0], scale, wires=where[0])
            elif kind == "fixed":
                getattr(qml, FIXED[pick % len(FIXED)])(wires=where[0])
            elif kind == "pair":
                getattr(qml, PAIRS[pick % len(PAIRS)])(wires=where[:2])
            elif kind == "turned pair":
                getattr(qml, TURNED_PAIRS[pick % len(TURNED_PAIRS)])(a, wires=where[:2])
            else:
                text = "".join("XYZ"[(pick >> (2 * i)) % 3] for i in range(wires))
                qml.PauliRot(a, text, wires=where)
        if measured == "probs":
            return qml.probs(wires=range(wires))
        found = [qml.expval(word(letters[0])), qml.expval(0.5 * word(letters[1]) - 2.0 * word(letters[2]))]
        return [*found, qml.var(word(letters[1])), qml.probs(wires=[0])] if measured == "mixed" else found

    return function, wires


def check_torch_path(layer, x, cotangent):
    """The path for accelerators, run on CPU tensors, equals the kernel."""
    compiled = layer.runner(FEATURES)
    if any(c.square is not None for c in compiled.program.columns):
        return  # the raw outputs of a variance are not the layer's
    w = layer.w.detach()
    own, shared = compiled.angles.own(x, w).unsqueeze(0), compiled.angles.shared(w).unsqueeze(0)
    state = None if compiled.state is None else compiled.state.own(x, w).unsqueeze(0)
    sweep = Sweep(compiled.program, compiled.routine, keep=True)
    arguments = (compiled.program, compiled.plan, own, shared, state)
    assert torch.allclose(torch_path.forward(*arguments), sweep.forward(own, shared, state), atol=1e-12)
    wanted = sweep.backward(own, shared, state, cotangent.unsqueeze(0))
    found = torch_path.backward(*arguments, cotangent.unsqueeze(0))
    for a, b in zip(found, wanted, strict=True):
        assert torch.allclose(a, b, atol=1e-12)
    own[0, 0] += 1  # other arguments than those of the kept final states
    wanted = Sweep(compiled.program, compiled.routine, keep=False).backward(own, shared, state, cotangent.unsqueeze(0))
    for a, b in zip(sweep.backward(own, shared, state, cotangent.unsqueeze(0)), wanted, strict=True):
        assert torch.equal(a, b)


def check(seed):
    function, wires = random_circuit(seed)
    layer = QuantumLayer(function, {"w": (WEIGHTS,)}, wires=wires).double()
    node = qml.QNode(function, qml.device("default.qubit", wires=wires), interface="torch", diff_method="backprop")
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(3, FEATURES, dtype=torch.float64, generator=generator).requires_grad_()
    got = layer(x)
    rows, gradients = [], []
    cotangent = torch.randn(got.shape, dtype=torch.float64, generator=generator)
    for i in range(3):
        found = node(x[i], layer.w)
        row = found if isinstance(found, torch.Tensor) else torch.hstack([f.reshape(-1).double() for f in found])
        rows.append(row.detach())
        if row.requires_grad:
            gradient = torch.autograd.grad(
                row, [x, layer.w], cotangent[i].to(row), allow_unused=True, materialize_grads=True
            )
        else:
            gradient = (torch.zeros_like(x), torch.zeros_like(layer.w))
        gradients.append(gradient)
    assert torch.allclose(got, torch.stack(rows).to(got), atol=1e-10, rtol=0)
    by_input, by_weight = torch.autograd.grad(got, [x, layer.w], cotangent)
    assert torch.allclose(by_input, sum(g[0] for g in gradients), atol=1e-10, rtol=0)
    assert torch.allclose(by_weight, sum(g[1] for g in gradients), atol=1e-10, rtol=0)
    samples = grad_sample(layer, [x.detach()], cotangent)[layer.w]
    assert torch.allclose(samples, torch.stack([g[1] for g in gradients]), atol=1e-10, rtol=0)
    check_torch_path(layer, x.detach(), cotangent)
    single = layer(x.float()).double()
    assert torch.allclose(single, got, atol=1e-5, rtol=0)


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 10**9))
def test_random_circuits(seed):
    check(seed)


@pytest.mark.slow
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 10**9))
def test_many_random_circuits(seed):
    check(seed)
