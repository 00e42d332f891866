"""What a user of TorchLayer relies on, and what is refused."""

import copy
import io
import pickle

import numpy as np
import pennylane as qml
import pytest
import torch
from torch import nn

from qfed.errors import CircuitError, ShapeError
from qfed.quantum import QuantumLayer, refuse_torch_layer, warmup
from qfed.quantum.cache import keep_on_disk

SHAPES = {"w": (1, 2, 3), "scale": 1, "bias": 2}


def circuit(inputs, w, scale, bias):
    qml.AngleEmbedding(inputs, wires=range(2))
    qml.StronglyEntanglingLayers(w, wires=range(2))
    qml.RX(scale, wires=0)
    qml.AngleEmbedding(bias, wires=range(2))
    return [qml.expval(qml.Z(0)), qml.expval(qml.Z(1))]


def node():
    return qml.QNode(circuit, qml.device("default.qubit", wires=2))


def test_parameters_have_torch_layers_names_shapes_and_range():
    ours, reference = QuantumLayer(node(), SHAPES), qml.qnn.TorchLayer(node(), SHAPES)
    want = {k: v.shape for k, v in reference.state_dict().items()}
    assert {k: v.shape for k, v in ours.state_dict().items()} == want
    assert all(isinstance(p, nn.Parameter) and p.dtype == torch.float32 for p in ours.parameters())
    assert all(((p >= 0) & (p < 2 * torch.pi)).all() for p in ours.parameters())


def test_init_method_is_a_function_or_a_dict():
    ones = QuantumLayer(node(), SHAPES, init_method=nn.init.ones_)
    assert all((p == 1).all() for p in ones.parameters())
    given = {"w": nn.init.zeros_, "scale": torch.tensor(0.5), "bias": torch.tensor([1.0, 2.0])}
    mixed = QuantumLayer(node(), SHAPES, init_method=given)
    assert (mixed.w == 0).all()
    assert mixed.scale == 0.5
    assert mixed.bias.tolist() == [1.0, 2.0]


def test_input_goes_by_keyword():
    layer = QuantumLayer(node(), SHAPES)
    x = torch.rand(3, 2)
    assert torch.equal(layer(inputs=x), layer(x))


def test_an_input_of_another_name():
    def named(features, w):
        qml.AngleEmbedding(features, wires=range(2))
        qml.BasicEntanglerLayers(w, wires=range(2))
        return [qml.expval(qml.Z(0))]

    layer = QuantumLayer(named, {"w": (1, 2)}, wires=2, input_name="features")
    assert layer(torch.rand(3, 2)).shape == (3, 1)


def test_the_input_name_of_layers_built_from_now_on():
    def named(features, w):
        qml.AngleEmbedding(features, wires=range(2))
        qml.BasicEntanglerLayers(w, wires=range(2))
        return [qml.expval(qml.Z(0))]

    before = QuantumLayer(node(), SHAPES)
    QuantumLayer.set_input_argument("features")
    try:
        assert QuantumLayer(named, {"w": (1, 2)}, wires=2)(torch.rand(3, 2)).shape == (3, 1)
        assert before(torch.rand(3, 2)).shape == (3, 2)
    finally:
        QuantumLayer.set_input_argument()
    assert QuantumLayer(node(), SHAPES).input_arg == "inputs"


def test_attributes_of_the_qnode_are_reached_through_the_layer():
    layer = QuantumLayer(node(), SHAPES)
    assert layer.device.name == "default.qubit"
    assert layer.interface == layer.qnode.interface
    assert layer.func is circuit
    assert {name: id(weight) for name, weight in layer.qnode_weights.items()} == {
        name: id(parameter) for name, parameter in layer.named_parameters()
    }
    for missing in (layer, QuantumLayer(circuit, SHAPES, wires=2)):
        with pytest.raises(AttributeError):
            _ = missing.no_such_thing
    assert copy.deepcopy(layer).device.name == "default.qubit"


def test_a_shape_may_be_of_numpy():
    layer = QuantumLayer(node(), {"w": np.array([1, 2, 3]), "scale": np.int64(1), "bias": torch.Size([2])})
    assert {name: tuple(w.shape) for name, w in layer.qnode_weights.items()} == {
        "w": (1, 2, 3),
        "scale": (),
        "bias": (2,),
    }


@pytest.mark.parametrize("used", [False, True])
def test_drawing_a_layer_is_refused_with_the_way_out_instead_of_waiting_for_ever(used):
    layer = QuantumLayer(node(), SHAPES)
    x = torch.rand(2)
    if used:
        layer(x)
    with pytest.raises(CircuitError, match=r"qml\.draw\(layer\.qnode\)\(inputs, \*\*layer\.qnode_weights\)"):
        qml.draw(layer)(x)
    assert "AngleEmbedding" in qml.draw(layer.qnode)(x, **layer.qnode_weights)


def test_wires_may_have_labels():
    def labelled(inputs, w):
        qml.AngleEmbedding(inputs, wires=["a", "b"])
        qml.BasicEntanglerLayers(w, wires=["a", "b"])
        return qml.probs(wires=["b", "a"])

    layer = QuantumLayer(labelled, {"w": (1, 2)}, wires=["a", "b"])
    reference = qml.qnn.TorchLayer(qml.QNode(labelled, qml.device("default.qubit", wires=["a", "b"])), {"w": (1, 2)})
    reference.load_state_dict(layer.state_dict())
    x = torch.rand(3, 2)
    assert torch.allclose(layer(x), reference(x), atol=1e-6)


@pytest.mark.parametrize("used", [False, True], ids=["fresh", "after a call"])
def test_copies(used):
    layer = QuantumLayer(node(), SHAPES)
    x = torch.rand(3, 2)
    if used:
        layer(x).sum().backward()
    saved = io.BytesIO()
    torch.save(layer.state_dict(), saved)
    saved.seek(0)
    loaded = QuantumLayer(node(), SHAPES)
    loaded.load_state_dict(torch.load(saved))
    for other in (copy.deepcopy(layer), loaded):
        assert torch.equal(other(x), layer(x))
    whole = QuantumLayer(circuit, SHAPES, wires=2)
    if used:
        whole(x)
    buffer = io.BytesIO()
    torch.save(whole, buffer)
    buffer.seek(0)
    unpickled = pickle.loads(pickle.dumps(whole))  # noqa: S301 - our own bytes
    for other in (unpickled, torch.load(buffer, weights_only=False)):
        assert torch.equal(other(x), whole(x))


def test_trains():
    torch.manual_seed(0)
    layer = QuantumLayer(node(), SHAPES)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1)
    x = torch.rand(16, 2)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = (layer(x) - torch.tensor([0.5, -0.5])).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.parametrize(
    ("shapes", "says"),
    [
        ({"w": (1, 2, 3)}, "missing: \\['bias', 'scale'\\]"),
        ({**SHAPES, "other": 3}, "not an argument: \\['other'\\]"),
        ({**SHAPES, "inputs": 3}, "the input 'inputs'"),
        ({**SHAPES, "bias": (0,)}, "weight_shapes\\['bias'\\]"),
    ],
)
def test_weight_shapes_that_do_not_fit_are_refused(shapes, says):
    with pytest.raises(CircuitError, match=says):
        QuantumLayer(node(), shapes)


def test_a_weight_of_the_wrong_shape_for_its_gate_is_refused():
    layer = QuantumLayer(node(), {**SHAPES, "w": (1, 3, 3)})
    with pytest.raises(CircuitError, match=r"'w': \(1, 3, 3\)"):
        layer(torch.rand(2, 2))


def test_too_many_features_are_refused():
    with pytest.raises(CircuitError, match="features=5"):
        QuantumLayer(node(), SHAPES)(torch.rand(2, 5))


@pytest.mark.parametrize(
    "init", [{"w": nn.init.ones_}, {**dict.fromkeys(SHAPES, nn.init.ones_), "bias": torch.ones(3)}]
)
def test_an_init_method_that_does_not_fit_is_refused(init):
    with pytest.raises(CircuitError, match="init_method"):
        QuantumLayer(node(), SHAPES, init_method=init)


def test_too_many_wires_are_refused():
    def wide(inputs, w):
        qml.AngleEmbedding(inputs, wires=range(2))
        qml.BasicEntanglerLayers(w, wires=range(21))
        return qml.expval(qml.Z(0))

    with pytest.raises(CircuitError, match="wires=21"):
        QuantumLayer(wide, {"w": (1, 21)}, wires=21)(torch.rand(2, 2))


def test_a_wire_the_device_does_not_have_is_refused():
    with pytest.raises(CircuitError, match=r"wires=\[1\]"):
        QuantumLayer(circuit, SHAPES, wires=1)(torch.rand(2, 2))


def test_a_plain_function_needs_wires():
    with pytest.raises(CircuitError, match="wires=4"):
        QuantumLayer(circuit, SHAPES)


def test_gates_chosen_by_value_are_refused():
    def branching(inputs, w):
        (qml.RX if inputs[..., 0] > 0.5 else qml.RY)(w[0], wires=0)
        qml.RZ(inputs[..., 0] ** 2, wires=0)
        return qml.expval(qml.Z(0))

    with pytest.raises(CircuitError, match=r"values|control flow"):
        QuantumLayer(branching, {"w": (1,)}, wires=1, init_method={"w": torch.ones(1)})(torch.rand(2, 1))


@pytest.mark.parametrize(
    "x", [torch.ones(2, 2, dtype=torch.long), torch.tensor(1.0), torch.ones(2, 2, dtype=torch.cfloat)]
)
def test_inputs_that_are_not_a_float_tensor_are_refused(x):
    with pytest.raises(ShapeError, match="floating-point"):
        QuantumLayer(node(), SHAPES)(x)


def test_a_noise_channel_is_refused_by_name():
    def noisy(inputs, w):
        qml.RX(inputs[..., 0] + w[0], wires=0)
        qml.DepolarizingChannel(0.1, wires=0)
        return qml.expval(qml.Z(0))

    with pytest.raises(CircuitError, match="DepolarizingChannel"):
        QuantumLayer(noisy, {"w": (2,)}, wires=1)(torch.rand(2, 1))


def test_a_raw_torch_layer_is_refused():
    raw = nn.Sequential(nn.Linear(2, 2), nn.Sequential(qml.qnn.TorchLayer(node(), SHAPES)))
    with pytest.raises(CircuitError, match=r"'1\.0' is a qml\.qnn\.TorchLayer.*silently zero.*QuantumLayer"):
        refuse_torch_layer(raw)
    refuse_torch_layer(nn.Sequential(nn.Linear(2, 2), QuantumLayer(node(), SHAPES)))


def test_warmup_is_quick_the_second_time():
    said = []
    warmup(said.append)
    assert any("float32" in line for line in said)
    assert warmup() < 1.0


def test_no_writable_cache_is_not_an_error(caplog):
    class Kernel:
        def enable_caching(self):
            raise RuntimeError("cannot cache function: no locator available")

    with caplog.at_level("INFO", logger="qfed.quantum"):
        keep_on_disk(Kernel())
    assert "NUMBA_CACHE_DIR" in caplog.text
