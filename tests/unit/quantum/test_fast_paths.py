"""per_sample, explain, threads, sites and memory."""

import pennylane as qml
import pytest
import torch

from qfed.errors import CircuitError, ShapeError
from qfed.quantum import QuantumLayer, workers


def strongly(wires, layers=2):
    def circuit(inputs, w):
        qml.AngleEmbedding(inputs, wires=range(wires))
        qml.StronglyEntanglingLayers(w, wires=range(wires))
        return [qml.expval(qml.Z(i)) for i in range(wires)]

    torch.manual_seed(1)
    return QuantumLayer(circuit, {"w": (layers, wires, 3)}, wires=wires)


def with_amplitudes_and_variance(inputs, w):
    qml.AmplitudeEmbedding(inputs, wires=range(3), normalize=True, pad_with=0.1)
    qml.StronglyEntanglingLayers(w, wires=range(3))
    return [qml.var(qml.X(0)), qml.expval(qml.Z(1)), qml.probs(wires=[2])]


def trained_scale(inputs, w):
    for i in range(3):
        qml.RX(inputs[..., i] * w[0, i, 0], wires=i)
    qml.StronglyEntanglingLayers(w, wires=range(3))
    return qml.expval(qml.Z(0)), qml.expval(qml.Y(1))


def noisy(inputs, w):
    qml.RX(inputs[..., 0] * w[0, 0, 0] + w[0, 1, 2], wires=0)
    qml.DepolarizingChannel(0.1, wires=0)
    return qml.expval(qml.Z(0))


@pytest.mark.parametrize("circuit", [None, with_amplitudes_and_variance, trained_scale, noisy])
def test_per_sample_equals_autograd_one_record_at_a_time(circuit):
    layer = (
        strongly(3) if circuit is None else QuantumLayer(circuit, {"w": (2, 3, 3)}, wires=3, fallback="default.mixed")
    )
    layer = layer.double()
    x = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    want = layer(x)
    out, pull = layer.per_sample(x)
    assert not out.requires_grad
    assert torch.allclose(out, want, atol=1e-12)
    cotangent = torch.randn(want.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    by_input, by_weight = pull(cotangent)
    wanted = torch.autograd.grad(want, x, cotangent)[0]
    assert torch.allclose(by_input, wanted, atol=1e-10)
    by_record = cotangent.movedim(1, 0) if circuit is trained_scale else cotangent
    for i in range(5):
        row = layer(x[i : i + 1])
        gradient = torch.autograd.grad(row, layer.w, by_record[i].reshape(row.shape))[0]
        assert torch.allclose(by_weight["w"][i], gradient, atol=1e-10)


def test_per_sample_takes_a_batch_of_records():
    with pytest.raises(ShapeError, match=r"shape=\(3,\)"):
        strongly(3).per_sample(torch.rand(3))


def test_gradients_are_at_the_records_of_the_forward_sweep():
    layer = strongly(3).double()
    x = torch.rand(4, 3, dtype=torch.float64)
    want = layer.per_sample(x.clone())[1](torch.ones(4, 3))
    _, pull = layer.per_sample(x)
    x += 1.0
    got = pull(torch.ones(4, 3))
    assert torch.equal(got[0], want[0])
    assert torch.equal(got[1]["w"], want[1]["w"])


@pytest.mark.parametrize("wires", [2, 5, 8])
def test_threads_change_nothing(wires, monkeypatch):
    layer = strongly(wires)
    x = torch.rand(100, wires, generator=torch.Generator().manual_seed(1))
    cotangent = torch.rand(100, wires, generator=torch.Generator().manual_seed(2))
    monkeypatch.setattr(workers, "_MIN_WORK", 1)
    found = []
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        out, pull = layer.per_sample(x)
        found.append((out, pull(cotangent)[1]["w"]))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


def test_an_error_in_a_thread_arrives():
    def work(first, last):
        if last == 4:
            raise CircuitError("no memory")

    with pytest.raises(CircuitError, match="no memory"):
        workers.each_thread(work, 4, 10**9)


def test_models_of_many_sites_in_one_call():
    layer = strongly(4).double()
    generator = torch.Generator().manual_seed(1)
    weights = torch.rand(6, *layer.w.shape, dtype=torch.float64, generator=generator)
    x = torch.rand(6, 21, 4, dtype=torch.float64, generator=generator)

    def loss(w, row):
        return torch.func.functional_call(layer, {"w": w}, (row.unsqueeze(0),)).square().sum()

    per_record = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))
    found = torch.func.vmap(per_record)(weights, x)
    for site in range(6):
        assert torch.allclose(found[site], per_record(weights[site], x[site]), atol=1e-12)


def test_explain_says_what_runs():
    text = strongly(4).explain(4)
    assert "4 wires" in text
    assert "product state of 16 rotations" in text
    assert "fold of 4 diagonal rotations" in text
    assert "4 rotations that change no result" in text  # the last RZ on every wire
    noise = QuantumLayer(noisy, {"w": (2, 3, 3)}, wires=3, fallback="default.mixed").explain(1)
    assert "default.mixed" in noise
    assert "DepolarizingChannel" in noise


def test_states_that_do_not_fit_are_refused(monkeypatch):
    monkeypatch.setattr(workers.os, "sysconf", lambda name: 4096 if name == "SC_PAGE_SIZE" else 1024)
    monkeypatch.setattr(workers, "_local", type("Empty", (), {})())
    with pytest.raises(CircuitError, match=r"wires=14 needs .* GiB a thread"):
        strongly(14, 1)(torch.rand(1, 14))


@pytest.mark.slow
def test_twenty_wires():
    layer = strongly(20, 1).double()
    x = torch.rand(1, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    out, pull = layer.per_sample(x)
    gradient = pull(torch.eye(20, dtype=torch.float64)[:1])[1]["w"][0]
    assert out.abs().max() <= 1
    assert gradient.abs().max() > 1e-5
    moved = {}
    place = divmod(int(gradient.flatten().abs().argmax()), 3)
    for sign in (1, -1):
        shifted = layer.w.detach().clone()
        shifted[0][place] += sign * 1e-5
        with torch.no_grad():
            moved[sign] = torch.func.functional_call(layer, {"w": shifted}, (x,))[0, 0]
    assert abs((moved[1] - moved[-1]) / 2e-5 - gradient[0][place]) < 1e-9
