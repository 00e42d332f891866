"""QuantumLayer against qml.qnn.TorchLayer on default.qubit: shapes, values, gradients."""

import pennylane as qml
import pytest
import torch

from qfed.quantum import QuantumLayer

WIRES = 3
SHAPES = {"w": (2, WIRES, 3)}


def _body(w):
    qml.StronglyEntanglingLayers(w, wires=range(WIRES))


def angle_list(inputs, w):
    qml.AngleEmbedding(inputs, wires=range(WIRES))
    _body(w)
    return [qml.expval(qml.Z(i)) for i in range(WIRES)]


def angle_tuple(inputs, w):
    qml.AngleEmbedding(inputs, wires=range(WIRES), rotation="Y")
    _body(w)
    return qml.expval(qml.Z(0)), qml.expval(qml.X(1) @ qml.Y(2))


def one_expval(inputs, w):
    qml.AngleEmbedding(inputs, wires=range(WIRES), rotation="Z")
    _body(w)
    return qml.expval(0.5 * qml.Z(0) @ qml.Z(2) - 1.5 * qml.X(1) + 0.25 * qml.Identity(0))


def list_of_one(inputs, w):
    qml.AngleEmbedding(inputs, wires=range(WIRES))
    _body(w)
    return [qml.expval(qml.Y(1))]


def probabilities(inputs, w):
    qml.AngleEmbedding(inputs, wires=range(WIRES))
    _body(w)
    qml.Hadamard(1)
    return qml.probs(wires=[2, 0])


def all_probabilities(inputs, w):
    qml.AngleEmbedding(inputs, wires=range(WIRES))
    _body(w)
    return qml.probs()


def mixed_list(inputs, w):
    qml.AngleEmbedding(inputs, wires=range(WIRES))
    _body(w)
    return [qml.probs(wires=[0]), qml.expval(qml.X(1)), qml.var(qml.Z(2) + 0.5 * qml.X(0))]


def amplitudes(inputs, w):
    qml.AmplitudeEmbedding(inputs, wires=range(WIRES), normalize=True, pad_with=0.3)
    _body(w)
    return [qml.expval(qml.Z(i)) for i in range(WIRES)]


def amplitudes_on_two_wires(inputs, w):
    qml.RX(0.3, wires=1)
    qml.AmplitudeEmbedding(inputs, wires=[2, 0], normalize=True, pad_with=0.0)
    _body(w)
    return [qml.expval(qml.Z(i)) for i in range(WIRES)]


def iqp(inputs, w):
    qml.IQPEmbedding(inputs, wires=range(WIRES), n_repeats=2)
    _body(w)
    return [qml.expval(qml.Z(i)) for i in range(WIRES)]


def reuploading_with_trained_scale(inputs, w):
    for layer in range(2):
        for i in range(WIRES):
            qml.RY(inputs[..., i] * w[layer, i, 0], wires=i)
            qml.Rot(*w[layer, i], wires=i)
        qml.CZ(wires=[0, 1])
        qml.IsingXX(torch.tanh(inputs[..., 2]), wires=[1, 2])
    return [qml.expval(qml.Z(i)) for i in range(WIRES)]


def indexed_by_column(inputs, w):
    for i in range(WIRES):
        qml.RX(inputs[:, i], wires=i)
    _body(w)
    return [qml.expval(qml.Z(i)) for i in range(WIRES)]


CIRCUITS = [
    angle_list,
    angle_tuple,
    one_expval,
    list_of_one,
    probabilities,
    all_probabilities,
    mixed_list,
    amplitudes,
    amplitudes_on_two_wires,
    iqp,
    reuploading_with_trained_scale,
    indexed_by_column,
]


def layers(function):
    node = qml.QNode(function, qml.device("default.qubit", wires=WIRES))
    reference = qml.qnn.TorchLayer(node, SHAPES)
    ours = QuantumLayer(node, SHAPES)
    ours.load_state_dict(reference.state_dict())
    return reference.double(), ours.double()


@pytest.mark.parametrize("function", CIRCUITS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("batch", [(5,), (1,), (2, 20), ()], ids=str)
def test_values_and_gradients_equal_pennylane(function, batch):
    if function is indexed_by_column and batch == ():
        pytest.skip("inputs[:, i] needs a batch dimension in PennyLane too")
    reference, ours = layers(function)
    generator = torch.Generator().manual_seed(7)
    x = torch.randn((*batch, WIRES), dtype=torch.float64, generator=generator).requires_grad_()
    y = x.detach().clone().requires_grad_()
    want, got = reference(x), ours(y)
    assert got.shape == want.shape
    assert torch.allclose(got, want, atol=1e-10, rtol=0)
    if function is amplitudes_on_two_wires:
        return  # PennyLane decomposes this state preparation, and the decomposition has NaN gradients
    cotangent = torch.randn(want.shape, dtype=torch.float64, generator=generator)
    wanted = torch.autograd.grad(want, [x, *reference.parameters()], cotangent)
    found = torch.autograd.grad(got, [y, *ours.parameters()], cotangent)
    for a, b in zip(wanted, found, strict=True):
        assert torch.allclose(a, b, atol=1e-10, rtol=0)
    assert found[1].abs().max() > 1e-3


@pytest.mark.parametrize("function", CIRCUITS, ids=lambda f: f.__name__)
def test_float32_is_close_to_float64(function):
    _, ours = layers(function)
    x = torch.randn(9, WIRES, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    double = ours(x)
    single = ours(x.float())
    assert single.dtype == torch.float32
    assert (single - double).abs().max() < 1e-5


@pytest.mark.parametrize("function", [angle_list, angle_tuple, one_expval, probabilities, amplitudes])
def test_an_empty_batch_has_an_empty_result_and_zero_gradients(function):
    _, ours = layers(function)
    full = ours(torch.zeros(2, WIRES, dtype=torch.float64))
    x = torch.zeros(0, WIRES, dtype=torch.float64, requires_grad=True)
    empty = ours(x)
    assert tuple(empty.shape) == tuple(
        0 if n == 2 and d == full.dim() - _rank(function) else n for d, n in enumerate(full.shape)
    )
    empty.sum().backward()
    assert torch.equal(ours.w.grad, torch.zeros(SHAPES["w"], dtype=torch.float64))


def _rank(function):
    """Dimensions of one record's result, plus one for the batch."""
    return 1 if function is one_expval else 2


def test_inputs_need_not_be_contiguous():
    _, ours = layers(angle_list)
    wide = torch.randn(8, 2 * WIRES, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    strided = wide[::2, ::2]
    assert not strided.is_contiguous()
    assert torch.equal(ours(strided), ours(strided.contiguous()))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_bad_record_stays_in_its_own_row(value):
    _, ours = layers(angle_list)
    x = torch.rand(20, WIRES, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    clean = ours(x)
    x[3, 1] = value
    spoiled = ours(x)
    assert spoiled[3].isnan().any()
    others = [i for i in range(20) if i != 3]
    assert torch.equal(spoiled[others], clean[others])


def test_half_precision_inputs_are_computed_in_float32():
    _, ours = layers(angle_list)
    x = torch.rand(4, WIRES, generator=torch.Generator().manual_seed(1))
    assert ours(x.half()).dtype == torch.float16
    assert torch.allclose(ours(x.half()).float(), ours(x.half().float()), atol=1e-3)
