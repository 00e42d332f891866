"""Per-sample gradients under Opacus (hooks, ghost, functorch) and torch.func, against one record at a time."""

import copy
import subprocess
import sys

import pennylane as qml
import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, jacrev, vmap

from qfed.errors import CircuitError
from qfed.quantum import QuantumLayer

# torch says so whenever Opacus' hook is on a layer whose input needs no gradient
pytestmark = [
    pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning"),  # torch's own call
]
WIRES = 3
SHAPES = {"w": (2, WIRES, 3), "last": (WIRES,)}


def angle(inputs, w, last):
    qml.AngleEmbedding(inputs, wires=range(WIRES))
    qml.StronglyEntanglingLayers(w, wires=range(WIRES))
    qml.AngleEmbedding(last, wires=range(WIRES), rotation="Y")
    return [qml.expval(qml.Z(i)) for i in range(WIRES)]


def amplitude(inputs, w, last):
    qml.AmplitudeEmbedding(inputs, wires=range(WIRES), normalize=True, pad_with=0.1)
    qml.StronglyEntanglingLayers(w, wires=range(WIRES))
    qml.AngleEmbedding(last, wires=range(WIRES), rotation="Y")
    return [qml.expval(qml.Z(i)) for i in range(WIRES)]


def trained_scale(inputs, w, last):
    for i in range(WIRES):
        qml.RX(inputs[..., i] * last[i], wires=i)
    qml.StronglyEntanglingLayers(w, wires=range(WIRES))
    return [qml.expval(qml.Z(i)) for i in range(WIRES)]


def as_tuple(inputs, w, last):
    angle(inputs, w, last)
    return qml.expval(qml.Z(0)), qml.expval(qml.Z(2))


class Scaled(nn.Module):
    def forward(self, x):
        return torch.tanh(x) * torch.pi


def hybrid(circuit=angle, features=5):
    torch.manual_seed(11)
    layer = QuantumLayer(circuit, SHAPES, wires=WIRES)
    return nn.Sequential(nn.Linear(features, WIRES), Scaled(), layer, nn.Linear(WIRES, 2)).double()


def one_at_a_time(model, x, y):
    found = []
    for i in range(len(x)):
        loss = nn.functional.cross_entropy(model(x[i : i + 1]), y[i : i + 1])
        found.append(torch.autograd.grad(loss, list(model.parameters())))
    return [torch.stack(parts) for parts in zip(*found, strict=True)]


def data(batch):
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(batch, 5, dtype=torch.float64, generator=generator)
    return x, torch.randint(0, 2, (batch,), generator=generator)


@pytest.mark.parametrize("circuit", [angle, amplitude, trained_scale], ids=lambda f: f.__name__)
@pytest.mark.parametrize("mode", ["hooks", "functorch"])
@pytest.mark.parametrize("batch", [1, 19])
def test_opacus_per_sample_gradients(circuit, mode, batch):
    from opacus.grad_sample import GradSampleModule

    model = hybrid(circuit)
    x, y = data(batch)
    wanted = one_at_a_time(model, x, y)
    wrapped = GradSampleModule(copy.deepcopy(model), force_functorch=mode == "functorch")
    nn.functional.cross_entropy(wrapped(x), y).backward()
    for want, parameter in zip(wanted, wrapped.parameters(), strict=True):
        assert torch.allclose(parameter.grad_sample, want, atol=1e-9, rtol=0)
        assert parameter.grad_sample.abs().amax() > 1e-6


@pytest.mark.parametrize("circuit", [angle, amplitude, trained_scale], ids=lambda f: f.__name__)
def test_ghost_clipping_clips_the_circuit(circuit):
    from opacus.grad_sample import GradSampleModuleFastGradientClipping
    from opacus.optimizers import DPOptimizerFastGradientClipping
    from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping

    model = hybrid(circuit)
    x, y = data(12)
    wanted = one_at_a_time(model, x, y)
    norms = torch.stack([w.reshape(12, -1).norm(dim=1) for w in wanted]).norm(dim=0)
    clip = float(norms.median())
    factors = (clip / (norms + 1e-6)).clamp(max=1.0)
    assert (factors < 1).any()

    wrapped = GradSampleModuleFastGradientClipping(copy.deepcopy(model), max_grad_norm=clip)
    optimizer = DPOptimizerFastGradientClipping(
        torch.optim.SGD(wrapped.parameters(), lr=1.0),
        noise_multiplier=0.0,
        max_grad_norm=clip,
        expected_batch_size=12,
        loss_reduction="mean",
    )
    criterion = DPLossFastGradientClipping(wrapped, optimizer, nn.CrossEntropyLoss(), loss_reduction="mean")
    criterion(wrapped(x), y).backward()
    assert torch.allclose(wrapped.per_sample_gradient_norms, norms, atol=1e-9, rtol=0)
    for want, parameter in zip(wanted, wrapped.parameters(), strict=True):
        clipped_sum = torch.einsum("b,b...->...", factors, want)
        assert torch.allclose(parameter.grad, clipped_sum, atol=1e-8, rtol=0)


@pytest.mark.parametrize("mode", ["hooks", "ghost"])
def test_opacus_takes_an_empty_batch(mode):
    from opacus.grad_sample import GradSampleModule, GradSampleModuleFastGradientClipping

    wrapper = GradSampleModule if mode == "hooks" else GradSampleModuleFastGradientClipping
    layer = QuantumLayer(angle, SHAPES, wires=WIRES)
    wrapped = wrapper(layer)
    wrapped(torch.zeros(0, WIRES)).sum().backward()
    if mode == "hooks":
        assert layer.w.grad_sample.shape == (0, *SHAPES["w"])
    else:
        assert layer.w._norm_sample.shape == (0,)


def test_opacus_sums_the_rows_of_a_record():
    from opacus.grad_sample import GradSampleModule

    layer = QuantumLayer(angle, SHAPES, wires=WIRES).double()
    x = torch.rand(4, 3, WIRES, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    wrapped = GradSampleModule(copy.deepcopy(layer), loss_reduction="sum")
    wrapped(x).square().sum().backward()
    for i in range(4):
        want = torch.autograd.grad(layer(x[i]).square().sum(), layer.w)[0]
        assert torch.allclose(wrapped._module.w.grad_sample[i], want, atol=1e-10)


def test_opacus_follows_the_tuple_layout():
    from opacus.grad_sample import GradSampleModule

    layer = QuantumLayer(as_tuple, SHAPES, wires=WIRES).double()
    x = torch.rand(4, WIRES, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    weight = torch.tensor([1.0, -3.0], dtype=torch.float64).reshape(2, 1, 1)
    wrapped = GradSampleModule(copy.deepcopy(layer), loss_reduction="sum")
    (wrapped(x) * weight).sum().backward()
    for i in range(4):
        want = torch.autograd.grad((layer(x[i]) * weight[:, 0]).sum(), layer.w)[0]
        assert torch.allclose(wrapped._module.w.grad_sample[i], want, atol=1e-10)


@pytest.mark.parametrize("circuit", [angle, amplitude, trained_scale], ids=lambda f: f.__name__)
def test_torch_func_grad_under_vmap(circuit):
    model = hybrid(circuit)
    x, y = data(18)
    wanted = one_at_a_time(model, x, y)

    def loss(parameters, xi, yi):
        out = functional_call(model, parameters, (xi.unsqueeze(0),))
        return nn.functional.cross_entropy(out, yi.unsqueeze(0))

    parameters = {k: v.detach() for k, v in model.named_parameters()}
    found = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, x, y)
    for want, name in zip(wanted, parameters, strict=True):
        assert torch.allclose(found[name], want, atol=1e-9, rtol=0)


def test_vmap_over_weights_is_a_stack_of_models():
    layer = QuantumLayer(angle, SHAPES, wires=WIRES).double()
    generator = torch.Generator().manual_seed(1)
    stacked = {
        k: torch.rand(4, *v.shape, dtype=torch.float64, generator=generator) for k, v in layer.named_parameters()
    }
    x = torch.rand(4, 6, WIRES, dtype=torch.float64, generator=generator)
    found = vmap(lambda p, xi: functional_call(layer, p, (xi,)))(stacked, x)
    for i in range(4):
        want = functional_call(layer, {k: v[i] for k, v in stacked.items()}, (x[i],))
        assert torch.allclose(found[i], want, atol=1e-12)


def test_jacrev_of_weights_and_inputs():
    layer = QuantumLayer(angle, SHAPES, wires=WIRES).double()
    x = torch.rand(4, WIRES, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    parameters = {k: v.detach() for k, v in layer.named_parameters()}
    by_weight, by_input = jacrev(lambda p, z: functional_call(layer, p, (z,)), argnums=(0, 1))(parameters, x)
    want = torch.autograd.functional.jacobian(lambda w: functional_call(layer, {**parameters, "w": w}, (x,)), layer.w)
    assert torch.allclose(by_weight["w"], want, atol=1e-10)
    assert by_input.shape == (4, WIRES, 4, WIRES)
    assert by_input[0, :, 1].abs().max() == 0
    assert by_input[0, :, 0].abs().max() > 1e-3


def test_second_derivatives_are_refused():
    layer = QuantumLayer(angle, SHAPES, wires=WIRES).double()
    x = torch.rand(2, WIRES, dtype=torch.float64, requires_grad=True)
    first = torch.autograd.grad(layer(x).sum(), x, create_graph=True)[0]
    with pytest.raises(CircuitError, match="first derivatives only"):
        first.sum().backward()
    with pytest.raises(CircuitError, match="reverse-mode"):
        torch.func.jacfwd(layer)(x.detach())


@pytest.mark.slow
def test_a_layer_built_before_opacus_is_imported():
    program = """
import sys, torch, pennylane as qml
from qfed.quantum import QuantumLayer
def circuit(inputs, w):
    qml.AngleEmbedding(inputs, wires=range(2))
    qml.BasicEntanglerLayers(w, wires=range(2))
    return [qml.expval(qml.Z(0))]
layer = QuantumLayer(circuit, {"w": (2, 2)}, wires=2)
x = torch.rand(3, 2)
layer(x)
assert "opacus" not in sys.modules
import copy, warnings
from opacus.grad_sample import GradSampleModule
bare = copy.deepcopy(layer)
wrapped = GradSampleModule(layer, loss_reduction="sum")
wrapped(x).sum().backward()
for i in range(3):
    want = torch.autograd.grad(bare(x[i]).sum(), bare.w)[0]
    assert torch.allclose(layer.w.grad_sample[i], want, atol=1e-6) and want.abs().max() > 1e-4
assert QuantumLayer in GradSampleModule.GRAD_SAMPLERS
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
