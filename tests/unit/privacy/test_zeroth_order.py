"""Zeroth-order steps: a record counts at most C whatever is measured, all sites go the same ways, noise is sigma C."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import chi2
from torch import Tensor, nn

from qfed.config import load_config
from qfed.data import Records, load, partition
from qfed.errors import BudgetExhausted, ConfigError, LocalProtocolError, ShapeError
from qfed.federation.contribution import mean_update, unfolded
from qfed.federation.local import learner_for
from qfed.privacy.directions import directions
from qfed.privacy.grid import GRID_STEPS, sensitivity
from qfed.privacy.ledger import Ledger, Limits
from qfed.privacy.plan import SharedPlan, Task, ZerothPlan, plan_for
from qfed.privacy.zeroth_order import Probe, clipped, clipped_differences

C = 0.5


def entropy(outputs: Tensor, y: Tensor) -> Tensor:
    return nn.functional.cross_entropy(outputs, y, reduction="none")


def data(count: int = 12) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, 3, generator=generator), torch.arange(count) % 2


def linear() -> nn.Linear:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Linear(3, 2)


def flat(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


class Device(nn.Module):
    """Answers whatever it is told to, like a device that is broken or hostile."""

    def __init__(self, answer: Callable[[int], float]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(4))
        self.answer, self.calls = answer, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return torch.full((len(x), 2), self.answer(self.calls)) * torch.tensor([1.0, -1.0])


def test_directions_are_signs_that_everybody_makes_alike() -> None:
    found = directions("a1", 7, 400, 300)
    assert np.array_equal(np.abs(found), np.ones((400, 300)))
    assert np.array_equal(found, directions("a1", 7, 400, 300))
    assert abs(found.mean()) < 5 / np.sqrt(found.size)
    assert np.abs(found @ found.T / 300 - np.eye(400)).max() < 0.4  # each is new
    for other in (directions("a1", 8, 400, 300), directions("a2", 7, 400, 300)):
        assert abs((found * other).mean()) < 5 / np.sqrt(found.size)


def test_differences_are_the_slope_along_the_direction() -> None:
    model, (x, y) = linear(), data()
    along = directions("r", 1, 3, 8)
    found = clipped_differences(model, entropy, flat(model), along, x, y, 1e-3, None)
    model = linear()
    entropy(model(x), y).sum().backward()
    gradient = torch.cat([p.grad.reshape(-1) for p in model.parameters()]).double().numpy()
    assert np.allclose(found, along @ gradient, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("count", [1, 3])
def test_each_record_is_clipped_and_their_sum_is_taken(count: int) -> None:
    model, (x, y) = linear(), data()
    along, weights = directions("r", 1, count, 8), flat(model)
    one = [clipped_differences(model, entropy, weights, along, x[i : i + 1], y[i : i + 1], 0.3, 0.2) for i in range(12)]
    norms = [np.linalg.norm(d) for d in one]
    assert max(norms) <= 0.2 * (1 + 1e-9)
    assert sum(norm > 0.199 for norm in norms) >= 2  # the clip does something
    every = clipped_differences(model, entropy, weights, along, x, y, 0.3, 0.2)
    assert np.allclose(every, np.sum(one, axis=0))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e30, 3e38])
def test_a_record_counts_at_most_c_whatever_the_device_answers(value: float) -> None:
    """Neighbouring data sets differ by one record: whatever comes back, the sum moves by at most C."""
    x, y = data(1)
    along = directions("r", 1, 2, 4)
    with np.errstate(all="raise"):
        model = Device(lambda call: value if call % 2 else 0.0)
        found = clipped_differences(model, entropy, torch.zeros(4), along, x, y, 0.3, C)
    assert model.calls == 4
    assert np.isfinite(found).all()
    assert np.linalg.norm(found) <= C * (1 + 1e-9)


def test_clipping_takes_every_kind_of_number() -> None:
    rows = np.array([[1e308, 1e308], [np.nan, 3.0], [np.inf, -np.inf], [3e-320, 0.0], [30.0, -40.0], [0.1, 0.2]])
    found = clipped(rows, C)
    assert (np.linalg.norm(found, axis=1) <= C * (1 + 1e-9)).all()
    assert np.allclose(found[[1, 2, 4, 5]], [[0, C], [0, 0], [0.3, -0.4], [0.1, 0.2]])


def test_no_records_run_no_circuits() -> None:
    model = Device(lambda _: 1.0)
    x, y = data(0)
    assert not clipped_differences(model, entropy, torch.zeros(4), directions("r", 1, 2, 4), x, y, 0.3, C).any()
    assert model.calls == 0


def test_a_loss_of_the_batch_is_refused() -> None:
    x, y = data()
    with pytest.raises(ShapeError, match="one value a record"):
        clipped_differences(linear(), lambda o, y: entropy(o, y).mean(), torch.zeros(8), np.ones((1, 8)), x, y, 0.3, C)


def zeroth(sigma: float | None = 1.5, steps: int = 1, rate: float = 1.0, momentum: float = 0.0) -> ZerothPlan:
    clip_norm, delta = (None, None) if sigma is None else (C, 1e-5)
    return ZerothPlan(Probe(2, 0.3, steps), rate, 4.0, 50, 0.25, momentum, 0.0, clip_norm, sigma, delta)


def ledger_at(path: Path, epsilon: float = 1e6) -> Ledger:
    return Ledger(path, Limits(epsilon, 1e-5), durable=False)


def released(plan: ZerothPlan, ledger: Ledger | None, round: int = 1, model: nn.Module | None = None) -> np.ndarray:
    made = model or linear()
    rng = None if plan.noise_multiplier is not None else np.random.default_rng(3)
    task = Task(flat(made), lambda: data(), ledger, "d", "r", round, rng)
    (outcome,) = plan.release_rounds(made, entropy, [task])
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def accepted(samples: np.ndarray, stddev: float) -> bool:
    """Whether samples have this standard deviation, at the level of 1e-6 on both sides."""
    statistic = float(((samples / stddev) ** 2).sum())
    return bool(chi2.ppf(1e-6, samples.size) < statistic < chi2.ppf(1 - 1e-6, samples.size))


def test_the_noise_of_mode_local_is_sigma_c(tmp_path: Path) -> None:
    plan = zeroth()
    model, (x, y) = linear(), data()
    along = directions("r", 1, 2, 8)
    quiet = -0.25 / 4 * clipped_differences(model, entropy, flat(model), along, x, y, 0.3, C)
    found = []
    for n in range(80):
        with closing(ledger_at(tmp_path / f"{n}.db")) as ledger:
            found.append(released(plan, ledger) - quiet)
    noise = np.concatenate(found) * 4 / 0.25  # back through the step to the sum
    assert accepted(noise, 1.5 * C)
    assert not accepted(noise, 1.5 * C * 2 / 3)
    assert not accepted(noise, 1.5 * C * 3 / 2)


def test_the_noise_of_mode_shared_is_a_share_of_sigma_c(tmp_path: Path) -> None:
    config = load_config(
        None, ["training.method=dp_zo", "training.directions=2", "federation.sites=5", "privacy.clip_norm=0.5"]
    )
    plan = plan_for(config)
    assert isinstance(plan, SharedPlan)
    model = Device(lambda _: 0.0)  # answers nothing, so all that comes out is noise
    found = []
    for n in range(100):
        with closing(ledger_at(tmp_path / f"{n}.db")) as ledger:
            task = Task(torch.zeros(4), lambda: data(), ledger, "d", "r", 1, None)
            (part,) = plan.release_rounds(model, entropy, [task])
            assert not isinstance(part, Exception), part
            assert part.shape == (2,)
            found.append(part)
    noise = np.concatenate(found).astype(float)
    share = plan.noise_multiplier * sensitivity(2) / np.sqrt(config.honest)
    assert share > GRID_STEPS / 10
    assert accepted(noise, share)
    assert not accepted(noise, share * 2 / 3)
    assert not accepted(noise, share * 3 / 2)


def test_a_round_is_charged_before_it_reads_and_answered_once(tmp_path: Path) -> None:
    plan = zeroth(steps=3)
    with closing(ledger_at(tmp_path / "a.db", epsilon=0.5)) as ledger:
        task = Task(flat(linear()), pytest.fail, ledger, "d", "r", 1, None)
        (outcome,) = plan.release_rounds(linear(), entropy, [task])
        assert isinstance(outcome, BudgetExhausted)
    with closing(ledger_at(tmp_path / "b.db")) as ledger:
        first = released(plan, ledger)
        spent = ledger.spent("d")
        assert first.shape == (6,)
        assert np.array_equal(released(plan, ledger), first)  # again: the first answer, no new noise
        assert ledger.spent("d") == spent == pytest.approx(plan.epsilon(1), rel=0.3)
    with pytest.raises(LocalProtocolError, match="needs the ledger"):
        released(plan, None)
    with closing(ledger_at(tmp_path / "c.db")) as ledger, pytest.raises(LocalProtocolError, match="charges no ledger"):
        released(zeroth(None), ledger)


def test_coefficients_are_those_of_momentum_sgd_on_the_weights() -> None:
    plan = zeroth(None, steps=4, momentum=0.5)
    found = released(plan, None)
    along = directions("r", 1, 8, 8)
    weights = nn.Parameter(flat(linear()).clone())
    optimizer, model, (x, y) = torch.optim.SGD([weights], 0.25, momentum=0.5), linear(), data()
    for step in range(4):
        mine = along[2 * step : 2 * step + 2]
        slope = clipped_differences(model, entropy, weights.detach(), mine, x, y, 0.3, None) / 4.0
        weights.grad = torch.from_numpy(slope @ mine).float()
        optimizer.step()
    moved = (weights.detach() - flat(linear())).numpy()
    assert np.allclose(found @ along, moved, atol=1e-5)


def test_sites_together_are_one_pooled_site_without_noise() -> None:
    """Mode off, exact circuits: the mean of the sites' moves is the step of all their records together."""
    sites = 3
    base = ["training.method=dp_zo", "privacy.mode=off", "training.momentum=0.0", "federation.weighting=uniform"]
    learner = learner_for(load_config(None, [*base, f"federation.sites={sites}"]))
    parts = [site.train for site in partition(load(learner.config.data), learner.config.data, sites, 1)]
    sums: dict[str, np.ndarray] = {}
    for number, part in enumerate(parts):
        read = partial(_same, part)
        blocks = learner.contribute(learner.start, read, ledger=None, dataset=f"{number}", run="r", round=1)
        for name, value in blocks.items():
            sums[name] = sums.get(name, np.zeros_like(value)) + value
    assert sums["update"].shape == (1,)  # one number, whatever the model's size
    mean = mean_update(learner.config, sums, sites)
    assert mean is not None
    move = unfolded(learner.config, mean, "r", 1, learner.parameters)
    along, training = directions("r", 1, 1, learner.parameters), learner.config.training
    x, y = (torch.from_numpy(np.concatenate([getattr(part, name) for part in parts])) for name in ("x", "y"))
    start = torch.from_numpy(learner.start)
    pooled = clipped_differences(learner.model, entropy, start, along, x, y, training.smoothing, None)
    step = -training.learning_rate * float(pooled[0]) / (sites * training.batch_size)
    assert np.allclose(move, step * along[0], rtol=1e-4)
    assert abs(step) > 1e-4


def _same(records: Records) -> Records:
    return records


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["privacy.mode=site", "federation.sites=60"], "protects records"),
        (["training.optimizer=adam", "privacy.mode=local"], "moves along its directions"),
    ],
)
def test_what_does_not_go_with_it_is_refused(changes: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_config(None, ["training.method=dp_zo", *changes])


def test_directions_without_the_method_are_refused() -> None:
    with pytest.raises(ConfigError, match="belongs to training"):
        load_config(None, ["training.directions=4"])
