"""The clipped sum equals Opacus' own: hooks, DPOptimizer, no noise; by the chain, and where the hooks must do."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable

import numpy as np
import pennylane as qml
import pytest
import torch
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn
from torch.nn import functional as F

from qfed.config import ModelConfig
from qfed.errors import ConfigError, ShapeError
from qfed.models import build, loss
from qfed.privacy.gradients import Fill, chain_for, clipped_sum, hooks, stacked_sum
from qfed.quantum import QuantumLayer

pytestmark = [
    pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning"),  # torch's own call
    # inputs that are not finite, on purpose
    pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning"),
]
WIRES = 3
WEIGHTS = {"w": (2, WIRES, 3), "last": (WIRES,)}
CLASSES = loss("classification")


def layer(prepare: Callable[..., None], results: Callable[[], object] | None = None) -> QuantumLayer:
    def circuit(inputs, w, last):  # type: ignore[no-untyped-def]
        prepare(inputs, last)
        qml.StronglyEntanglingLayers(w, wires=range(WIRES))
        qml.AngleEmbedding(last, wires=range(WIRES), rotation="Y")
        return [qml.expval(qml.Z(i)) for i in range(WIRES)] if results is None else results()

    return QuantumLayer(circuit, WEIGHTS, wires=WIRES)


def angle(inputs: object, _: object) -> None:
    qml.AngleEmbedding(inputs, wires=range(WIRES))


def amplitude(inputs: object, _: object) -> None:
    qml.AmplitudeEmbedding(inputs, wires=range(WIRES), normalize=True, pad_with=0.1)


def trained_scale(inputs, last):  # type: ignore[no-untyped-def]
    for i in range(WIRES):
        qml.RX(inputs[..., i] * last[i], wires=i)


class Scalar(nn.Module):
    """A circuit with one result, and one that returns a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.one = layer(angle, lambda: qml.expval(qml.Z(0)))
        self.pair = layer(angle, lambda: (qml.expval(qml.Z(0)), qml.var(qml.Z(1))))
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        pair = self.pair(x).movedim(0, -2).flatten(-2)
        out: Tensor = self.head(torch.cat([self.one(x).unsqueeze(-1), pair], dim=1))
        return out


class Shapes(nn.Module):
    """Everything that moves values about."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.mix, self.head = nn.Linear(4, 6), nn.Linear(3, 5), nn.Linear(14, 2)

    def forward(self, x: Tensor) -> Tensor:
        z = self.into(x.reshape(x.shape[0], 2, 2, 4))  # (B, 2, 2, 6)
        z = F.gelu(z, approximate="tanh").view(x.size(0), 4, 6).transpose(1, 2)
        z = self.mix(z[:, ::2, 1:] - 0.5)  # (B, 3, 5)
        z = F.pad(torch.relu(z), (1, -2)) * (1 - z[..., :4]) / 2
        a, b = z.mean(dim=(1, 2)), z[:, 1][..., torch.tensor([0, 3, 3])].sum(-1)
        z = torch.stack([z.permute(0, 2, 1).flatten(1), -z.reshape(len(z.shape) - 3 + x.shape[0], 12)], dim=-1)
        z = torch.cat([z[..., 0], a.unsqueeze(1), b[:, None] if b.dim() > 1 else b.unsqueeze(-1)], dim=1)
        out: Tensor = self.head(z)
        return out


class Residual(nn.Module):
    """Values used twice, and a layer used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.block, self.head = nn.Linear(16, 16), nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        z = x + torch.sigmoid(self.block(x))
        z = 3.0 - z * self.block(torch.tanh(z))
        out: Tensor = self.head(z)
        return out


def tied() -> nn.Module:
    model = nn.Sequential(nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 16), nn.ELU(), nn.Linear(16, 2))
    model[2].weight = model[0].weight
    return model


MODELS: dict[str, Callable[[], nn.Module]] = {
    "hybrid": lambda: build(ModelConfig(wires=3, layers=2), 16, 2, 1),
    "hybrid, entangler": lambda: build(ModelConfig(wires=4, layers=1, circuit="basic_entangler"), 16, 3, 1),
    "twin": lambda: build(ModelConfig(kind="twin", wires=3, layers=2), 16, 2, 1),
    "twin, one left over": lambda: build(ModelConfig(kind="twin", wires=2, layers=1), 16, 2, 1),
    "amplitudes": lambda: nn.Sequential(nn.Linear(16, 5), layer(amplitude), nn.Linear(3, 2)),
    "trained scale": lambda: nn.Sequential(nn.Linear(16, 3), layer(trained_scale), nn.Linear(3, 2)),
    "rows of a record": lambda: nn.Sequential(
        nn.Unflatten(1, (4, 4)), nn.Linear(4, 3), layer(angle), nn.Flatten(), nn.Linear(12, 2)
    ),
    "scalar and tuple": lambda: nn.Sequential(nn.Linear(16, 3), nn.Tanh(), Scalar()),
    "images": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 4, 4)), nn.Conv2d(1, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 2, groups=2, bias=False), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(6),
        nn.Linear(6, 2),
    ),
    "strides": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 4, 4)), nn.Conv2d(1, 3, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2)), nn.SiLU(),
        nn.AvgPool2d((1, 2)), nn.Flatten(), nn.LazyLinear(2),
    ),
    "series": lambda: nn.Sequential(
        nn.Unflatten(1, (2, 8)), nn.Conv1d(2, 3, 3, padding="same", dilation=2), nn.LeakyReLU(), nn.MaxPool1d(3, 2),
        nn.Linear(3, 9), nn.LayerNorm((3, 9)), nn.Sigmoid(), nn.AvgPool1d(2), nn.Flatten(), nn.Linear(12, 2),
    ),
    "library: qcnn": lambda: build(ModelConfig(architecture="qcnn"), 16, 2, 1),
    "library: quanvolution": lambda: build(ModelConfig(architecture="quanvolution"), 16, 2, 1),
    "library: cnn": lambda: build(ModelConfig(architecture="cnn"), 16, 2, 1),
    "library: kernel": lambda: build(ModelConfig(architecture="kernel"), 16, 2, 1),
    "library: twin of kernel": lambda: build(ModelConfig(architecture="kernel", kind="twin"), 16, 2, 1),
    "shapes": Shapes,
    "used twice": Residual,
    "tied": tied,
}  # fmt: skip


def made(name: str, dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(3)
    model = MODELS[name]()
    model(torch.zeros(2, 16))  # for lazy layers
    return model.to(dtype)


def batch(records: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(records, 16, generator=generator, dtype=torch.float64).to(dtype)
    return x, torch.randint(0, 2, (records,), generator=generator)


def of_opacus(model: nn.Module, x: Tensor, y: Tensor, clip_norm: float) -> Tensor:
    """What Opacus' own optimiser makes of the batch, without noise."""
    wrapped = GradSampleModule(copy.deepcopy(model), loss_reduction="sum", strict=False)
    trained = [p for p in wrapped.parameters() if p.requires_grad]
    optimizer = DPOptimizer(
        torch.optim.SGD(trained, lr=1.0), noise_multiplier=0.0, max_grad_norm=clip_norm, expected_batch_size=None,
        loss_reduction="sum",
    )  # fmt: skip
    CLASSES(wrapped(x.clone().requires_grad_()), y).sum().backward()  # type: ignore[no-untyped-call]
    optimizer.clip_and_accumulate()
    return torch.cat([p.summed_grad.reshape(-1) for p in trained])


@pytest.mark.parametrize("records", [0, 1, 20])
@pytest.mark.parametrize("name", list(MODELS))
def test_the_clipped_sum_is_that_of_opacus(name: str, records: int) -> None:
    model, (x, y) = made(name), batch(records)
    assert chain_for(model, (16,), torch.float64) is not None, "by the chain, not by the hooks"
    norms = torch.cat(hooks.per_record(model, CLASSES, x, y), dim=1).norm(dim=1)
    clip_norm = float(norms.median()) if records else 1.0
    found, wanted = clipped_sum(model, CLASSES, x, y, clip_norm), of_opacus(model, x, y, clip_norm)
    assert found.shape == wanted.shape
    assert torch.allclose(found, wanted, atol=1e-10, rtol=1e-10)
    assert records == 0 or float(found.abs().max()) > 1e-3
    assert records < 2 or 0 < int((norms > clip_norm).sum()) < records, "some are clipped and some are not"


@pytest.mark.parametrize("name", ["hybrid", "twin", "images", "amplitudes"])
def test_in_float32_it_is_that_of_opacus_to_1e_6(name: str) -> None:
    model, (x, y) = made(name, torch.float32), batch(20, torch.float32)
    wanted = of_opacus(model, x, y, 0.3)
    assert torch.allclose(clipped_sum(model, CLASSES, x, y, 0.3), wanted, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf"), 1e38])
@pytest.mark.parametrize("name", ["hybrid", "twin", "images"])
def test_a_record_that_is_not_finite_counts_as_with_the_hooks(name: str, poison: float) -> None:
    model, (x, y) = made(name, torch.float32), batch(6, torch.float32)
    x[2, 3] = poison
    x[4] = poison
    found = clipped_sum(model, CLASSES, x, y, 0.3)
    assert bool(torch.isfinite(found).all())
    assert torch.allclose(found, hooks.clipped_sum(model, CLASSES, x, y, 0.3), atol=1e-6, rtol=1e-5)


def test_frozen_parameters_are_left_out() -> None:
    model, (x, y) = made("images"), batch(9)
    for index in (1, 9):
        model[index].weight.requires_grad_(False)  # type: ignore[index]
    model[2].bias.requires_grad_(False)  # type: ignore[index]
    assert chain_for(model, (16,), torch.float64) is not None
    found = clipped_sum(model, CLASSES, x, y, 0.5)
    assert len(found) == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert torch.allclose(found, of_opacus(model, x, y, 0.5), atol=1e-10)
    with torch.no_grad():
        model[1].weight.mul_(2.0)  # type: ignore[index]
    assert torch.allclose(clipped_sum(model, CLASSES, x, y, 0.5), of_opacus(model, x, y, 0.5), atol=1e-10)


def test_a_circuit_with_a_frozen_weight() -> None:
    model, (x, y) = made("rows of a record"), batch(9)
    model[2].w.requires_grad_(False)  # type: ignore[index]
    assert torch.allclose(clipped_sum(model, CLASSES, x, y, 0.5), of_opacus(model, x, y, 0.5), atol=1e-10)


def test_an_unused_parameter_is_refused() -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Linear(16, 2), nn.Linear(7, 1)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.used(x)
            return out

    with pytest.raises(ConfigError, match=r"shape \(1, 7\) got no gradient"):
        clipped_sum(Half().double(), CLASSES, *batch(3), 1.0)


class Branch(nn.Module):
    """Looks at values: no graph stands for it."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(16, 2), nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.one(x) + (self.other(x) if bool(x.sum() > -1e9) else 0.0)
        return out


class Counting(nn.Module):
    """Mixes records in a way that tracing sees."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(x - 0 * x.mean(dim=0, keepdim=True))
        return out


class Overridden(nn.Linear):
    """Not what its class says."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (lambda: nn.Sequential(nn.Linear(16, 4), nn.Softplus(), nn.Linear(4, 2)), "no rule for Softplus"),
        (Branch, "no rule for gt"),
        (Counting, "over the batch"),
        (lambda: Overridden(16, 2), "outside of the layers"),
        (lambda: nn.Sequential(nn.Unflatten(1, (1, 16)), nn.Conv1d(1, 2, 3, padding=1, padding_mode="circular"),
                               nn.Flatten(), nn.Linear(32, 2)), "padding_mode"),
    ],
)  # fmt: skip
def test_what_has_no_chain_goes_by_the_hooks_and_is_told_once(
    model: Callable[[], nn.Module], why: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qfed.privacy.gradients.door._said", set())  # other tests may have said it in this process
    torch.manual_seed(1)
    with caplog.at_level(logging.INFO, "qfed.privacy"):
        for _ in range(2):
            module, (x, y) = model().double(), batch(9)
            found = clipped_sum(module, CLASSES, x, y, 0.5)
            assert torch.allclose(found, of_opacus(module, x, y, 0.5), atol=1e-9)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 1
    assert "Opacus' hooks" in told[0]
    assert why in told[0]


def test_a_model_that_changed_gets_another_chain() -> None:
    model, (x, y) = made("twin"), batch(9)
    clipped_sum(model, CLASSES, x, y, 0.5)
    model.head = nn.Linear(3, 2).double()
    assert torch.allclose(clipped_sum(model, CLASSES, x, y, 0.5), of_opacus(model, x, y, 0.5), atol=1e-10)


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_the_slope_of_a_loss_is_its_derivative(task: str) -> None:
    criterion = loss(task)
    generator = torch.Generator().manual_seed(1)
    out = (10 * torch.randn(12, 3 if task == "classification" else 1, generator=generator)).double().requires_grad_()
    y = torch.randint(0, 3, (12,), generator=generator) if task == "classification" else torch.rand(12).double()
    wanted = torch.autograd.grad(criterion(out, y).sum(), out)[0]
    found = criterion.slope(out.detach().numpy(), y.numpy())
    assert torch.allclose(torch.from_numpy(found), wanted, atol=1e-12)
    stacked = criterion.slope(out.detach().numpy().reshape(3, 4, -1), y.numpy().reshape(3, 4))
    assert np.array_equal(stacked.reshape(found.shape), found)


def test_a_class_that_is_none_is_refused() -> None:
    model, (x, y) = made("twin"), batch(4)
    for label in (-1, 2):
        y[1] = label
        with pytest.raises(ShapeError, match="from 0 to 1"):
            clipped_sum(model, CLASSES, x, y, 1.0)


def test_any_loss_of_one_value_a_record_will_do() -> None:
    model, (x, y) = made("hybrid"), batch(9)
    assert torch.allclose(
        clipped_sum(model, lambda out, y: CLASSES(out, y), x, y, 0.5),
        clipped_sum(model, CLASSES, x, y, 0.5),
        atol=1e-12,
    )
    with pytest.raises(ShapeError, match="one value a record"):
        clipped_sum(model, lambda out, y: CLASSES(out, y).mean(), x, y, 0.5)


@pytest.mark.parametrize("clip_norm", [0.3, None])
@pytest.mark.parametrize("name", ["hybrid", "amplitudes", "images", "rows of a record", "used twice"])
def test_a_stack_of_sites_is_the_sites_one_by_one(name: str, clip_norm: float | None) -> None:
    model, sizes = made(name), [5, 0, 17, 1]
    chain = chain_for(model, (16,), torch.float64)
    assert chain is not None
    rng = np.random.default_rng(0)
    flat = rng.normal(size=(4, chain.size)) / 2
    x, y = rng.normal(size=(4, 17, 16)), rng.integers(0, 2, (4, 17))
    present = np.arange(17) < np.array(sizes)[:, None]
    x, y = x * present[..., None], y * present
    x[2, 3, 0] = np.nan if clip_norm else x[2, 3, 0]
    fill = Fill(present, np.array([0, 5, 5, 22, 23]))
    found = stacked_sum(chain, CLASSES, flat, x, y, fill, clip_norm)
    for k, size in enumerate(sizes):
        alone = stacked_sum(
            chain, CLASSES, flat[k : k + 1], x[k : k + 1, :size], y[k : k + 1, :size], None, clip_norm
        )  # fmt: skip
        assert np.allclose(found[k], alone[0], atol=1e-10)
    assert np.all(found[1] == 0)
    assert np.abs(found[2]).max() > 1e-3
