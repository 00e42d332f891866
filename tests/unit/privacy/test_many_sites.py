"""Many sites in one call: the same models as one by one, each charged to its own ledger before its records are read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from qfed.config import ModelConfig
from qfed.errors import BudgetExhausted, PolicyRefused
from qfed.models import build, loss
from qfed.privacy.ledger import Ledger, Limits
from qfed.privacy.plan import LocalPlan, OpenPlan, Receipt, Task
from qfed.privacy.steps import flat

CLASSES = loss("classification")
SIZES = (7, 0, 19, 3)
PLAN = LocalPlan(
    local_steps=4, sampling_rate=0.6, batch_size=5.0, rounds=9, clip_norm=0.4, noise_multiplier=1.0, delta=1e-5
)


def sgd(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.5, momentum=0.9)


def adam(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=0.05)


class Normed(torch.optim.Optimizer):
    """A step as long as the parameter's gradient says nothing of: not element by element."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        super().__init__(parameters, {})

    @torch.no_grad()
    def step(self, closure: object = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.sub_(0.1 * parameter.grad / (parameter.grad.norm() + 1e-9))


def records(site: int, count: int) -> Callable[[], tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(site)
    x = torch.rand(count, 5, generator=generator) * 2 - 1
    return lambda: (x, torch.arange(count) % 2)


def hybrid() -> nn.Module:
    return build(ModelConfig(wires=3, layers=2), 5, 2, seed=3)


def no_chain() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(5, 4), nn.Softplus(), nn.Linear(4, 2))


def start(model: nn.Module, site: int) -> Tensor:
    return flat(model) + 0.1 * site


@pytest.fixture
def injected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sampling and noise that are the same however many sites are asked for at once."""
    size = len(flat(hybrid()))
    monkeypatch.setattr("qfed.privacy.plan.poisson_sample", lambda count, rate: np.arange(count))
    pattern = np.cos(np.arange(size))
    monkeypatch.setattr("qfed.privacy.clipping.gaussian", lambda count, stddev: stddev * np.resize(pattern, count))


def tasks(model: nn.Module, folder: Path | None) -> list[Task]:
    return [
        Task(
            start(model, k), records(k, count),
            None if folder is None else Ledger(folder / f"{k}.db", Limits(1e9, 1e-5)),
            f"site-{k}", "run", 1, np.random.default_rng(k),
        )
        for k, count in enumerate(SIZES)
    ]  # fmt: skip


@pytest.mark.usefixtures("injected")
@pytest.mark.parametrize("make", [sgd, adam, Normed])
@pytest.mark.parametrize("private", [True, False])
def test_a_stack_trains_as_one_by_one(
    tmp_path: Path, private: bool, make: Callable[..., torch.optim.Optimizer]
) -> None:
    model, plan = hybrid(), PLAN if private else OpenPlan(4, 0.6, 5.0)
    together = tasks(model, tmp_path if private else None)
    receipts = plan.train_rounds(model, CLASSES, together, optimizer=make)
    (tmp_path / "alone").mkdir()
    for k, task in enumerate(tasks(model, tmp_path / "alone" if private else None)):
        alone = plan.train_rounds(model, CLASSES, [task], optimizer=make)
        assert alone == [receipts[k]]
        assert torch.allclose(together[k].weights, task.weights, atol=1e-5)
        assert private or SIZES[k] == 0 or float((task.weights - start(model, k)).abs().max()) > 1e-2
    if private:
        for task in together:
            assert task.ledger is not None
            assert [entry.what for entry in task.ledger.rows()] == ["open", "reserve", "settle"]


@pytest.mark.usefixtures("injected")
def test_a_model_without_a_chain_trains_many_sites_as_well(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = no_chain()
    pattern = np.cos(np.arange(len(flat(model))))
    monkeypatch.setattr("qfed.privacy.clipping.gaussian", lambda count, stddev: stddev * np.resize(pattern, count))
    together = tasks(model, tmp_path)
    PLAN.train_rounds(model, CLASSES, together, optimizer=sgd)
    (tmp_path / "alone").mkdir()
    for k, task in enumerate(tasks(no_chain(), tmp_path / "alone")):  # the model itself is scratch
        PLAN.train_rounds(model, CLASSES, [task], optimizer=sgd)
        assert torch.allclose(together[k].weights, task.weights, atol=1e-5)


def test_in_a_stack_a_site_is_charged_before_its_records_are_read(tmp_path: Path) -> None:
    model, seen = hybrid(), []
    made = tasks(model, tmp_path)

    def reader(k: int) -> Callable[[], tuple[Tensor, Tensor]]:
        def read() -> tuple[Tensor, Tensor]:
            book = Ledger(tmp_path / f"{k}.db", Limits(1e9, 1e-5))
            seen.append([entry.what for entry in book.rows()])
            book.close()
            return records(k, SIZES[k])()

        return read

    watched = [
        Task(t.weights, reader(k), t.ledger, t.dataset, t.run, t.round, t.rng) for k, t in enumerate(made)
    ]  # fmt: skip
    PLAN.train_rounds(model, CLASSES, watched, optimizer=sgd)
    assert seen == [["open", "reserve"]] * len(SIZES)


def test_a_site_that_may_not_or_cannot_is_left_out_and_says_why(tmp_path: Path) -> None:
    model = hybrid()

    def never() -> tuple[Tensor, Tensor]:
        raise AssertionError("records were read")

    def broken() -> tuple[Tensor, Tensor]:
        raise OSError("disk on fire")

    poor = Ledger(tmp_path / "poor.db", Limits(0.1, 1e-5))
    rich = [Ledger(tmp_path / f"rich-{k}.db", Limits(1e9, 1e-5)) for k in range(3)]
    begin = flat(model)
    good = Task(begin.clone(), records(2, 9), rich[0], "good", "run", 1, None)
    made = [
        Task(begin.clone(), never, poor, "poor", "run", 1, None),
        good,
        Task(begin.clone(), broken, rich[1], "broken", "run", 1, None),
    ]
    outcomes = PLAN.train_rounds(model, CLASSES, made, optimizer=sgd)
    assert isinstance(outcomes[0], BudgetExhausted)
    assert isinstance(outcomes[1], Receipt)
    assert isinstance(outcomes[2], OSError)
    assert poor.rows() == ()
    assert [entry.what for entry in rich[1].rows()] == ["open", "reserve"], "what was cut off stays charged"

    again = [
        Task(begin.clone(), never, rich[0], "good", "run", 1, None),
        Task(begin.clone(), never, rich[1], "broken", "run", 1, None),
        Task(begin.clone(), records(1, 4), rich[2], "new", "run", 1, None),
    ]
    outcomes = PLAN.train_rounds(model, CLASSES, again, optimizer=sgd)
    assert outcomes[0] == Receipt(4, rich[0].spent("good"), replayed=True)
    assert torch.equal(again[0].weights, good.weights)
    assert isinstance(outcomes[1], PolicyRefused)
    assert outcomes[2] == Receipt(4, rich[2].spent("new"))


def test_sites_with_records_of_other_shapes_are_trained_apart() -> None:
    model = nn.Sequential(nn.AdaptiveAvgPool1d(4), nn.Flatten(), nn.Linear(4, 2))
    plan = OpenPlan(2, 1.0, 4.0)
    made = []
    for k, width in enumerate((8, 16, 8)):
        x = torch.rand(5, 1, width, generator=torch.Generator().manual_seed(k))
        made.append(
            Task(flat(model), lambda x=x: (x, torch.arange(5) % 2), None, str(k), "run", 1, np.random.default_rng(k))  # type: ignore[misc]
        )
    assert plan.train_rounds(model, CLASSES, made, optimizer=sgd) == [Receipt(2, None)] * 3
    assert all(float((task.weights - flat(model)).abs().max()) > 0 for task in made)
