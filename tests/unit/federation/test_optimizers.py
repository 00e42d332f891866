"""Server steps against the papers' formulas, and against Flower's own strategy objects that run for many rounds."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from qfed._flower import (
    Array,
    ArrayRecord,
    FedAdagrad,
    FedAdam,
    FedAvgM,
    FedYogi,
    Message,
    MetricRecord,
    RecordDict,
    assume_identity,
)
from qfed.config import FederationConfig
from qfed.errors import ProtocolError
from qfed.federation.optimizers import robust_update, server_step

P, ROUNDS = 7, 6
Vector = NDArray[np.float64]


@pytest.fixture(autouse=True)
def _identity() -> None:
    assume_identity(1)


def updates() -> list[Vector]:
    return list(np.random.default_rng(3).normal(0, 0.3, (ROUNDS, P)))


def config(strategy: str, **terms: Any) -> FederationConfig:
    return FederationConfig(strategy=strategy, **terms)


def ours(settings: FederationConfig) -> list[Vector]:
    model, state, models = np.linspace(-1, 1, P).astype(np.float32), {}, []
    for round, update in enumerate(updates(), 1):
        model, state = server_step(settings, model, update, round, state)
        models.append(model)
    return models


# -- the formulas of the papers, written down once more --------------------------------------------------------------


def fedavg(eta: float) -> Iterator[Callable[[Vector], Vector]]:
    while True:
        yield lambda d: eta * d


def fedavgm(eta: float, beta: float) -> Iterator[Callable[[Vector], Vector]]:
    v = np.zeros(P)

    def step(d: Vector) -> Vector:
        nonlocal v
        v = beta * v + d
        return eta * v

    while True:
        yield step


def adaptive(kind: str, eta: float, b1: float, b2: float, tau: float) -> Iterator[Callable[[Vector], Vector]]:
    """Reddi et al., algorithm 2, with v_0 = 0, and for Adam the step size of Kingma and Ba, section 2."""
    m, v = np.zeros(P), np.zeros(P)
    for t in itertools.count(1):

        def step(d: Vector, t: int = t) -> Vector:
            nonlocal m, v
            m = b1 * m + (1 - b1) * d
            if kind == "fedadagrad":
                v = v + d**2
            elif kind == "fedyogi":
                v = v - (1 - b2) * d**2 * np.sign(v - d**2)
            else:
                v = b2 * v + (1 - b2) * d**2
            rate = eta * math.sqrt(1 - b2 ** (t + 1)) / (1 - b1 ** (t + 1)) if kind == "fedadam" else eta
            return rate * m / (np.sqrt(v) + tau)

        yield step


FORMULAS = [
    (config("fedavg"), fedavg(1.0)),
    (config("fedprox", server_learning_rate=0.5), fedavg(0.5)),
    (config("fedavgm"), fedavgm(1.0, 0.9)),
    (config("fedavgm", server_momentum=0.5, server_learning_rate=0.3), fedavgm(0.3, 0.5)),
    (config("fedavgm", server_momentum=0.0), fedavgm(1.0, 0.0)),
    (config("fedadagrad"), adaptive("fedadagrad", 0.1, 0.0, 0.0, 1e-3)),
    (config("fedadam"), adaptive("fedadam", 0.1, 0.9, 0.99, 1e-3)),
    (config("fedadam", beta1=0.5, beta2=0.8, tau=0.1), adaptive("fedadam", 0.1, 0.5, 0.8, 0.1)),
    (config("fedyogi"), adaptive("fedyogi", 0.01, 0.9, 0.99, 1e-3)),
    (config("fedyogi", server_learning_rate=0.2), adaptive("fedyogi", 0.2, 0.9, 0.99, 1e-3)),
]


@pytest.mark.parametrize(("settings", "steps"), FORMULAS, ids=lambda v: getattr(v, "strategy", ""))
def test_a_step_is_the_published_one(settings: FederationConfig, steps: Iterator[Callable[[Vector], Vector]]) -> None:
    model = np.linspace(-1, 1, P).astype(np.float32)
    for got, update, step in zip(ours(settings), updates(), steps, strict=False):
        model = (model + step(update)).astype(np.float32)
        np.testing.assert_allclose(got, model, rtol=0, atol=3e-6)
    assert np.abs(got - np.linspace(-1, 1, P)).max() > 0.01, "the comparison must be able to fail"


FLOWER = {
    "fedavgm": FedAvgM(server_learning_rate=0.3, server_momentum=0.9),
    "fedadam": FedAdam(eta=0.3),
    "fedyogi": FedYogi(eta=0.3),
    "fedadagrad": FedAdagrad(eta=0.3),
}


def record(vector: Vector) -> ArrayRecord:
    return ArrayRecord({"model": Array(np.asarray(vector, np.float64))})


@pytest.mark.parametrize("name", FLOWER)
def test_a_run_is_that_of_flowers_strategy_object(name: str) -> None:
    """Flower's object keeps its own state; ours goes through the checkpoint's arrays in every round."""
    strategy: Any = FLOWER[name]
    model = np.linspace(-1, 1, P).astype(np.float32)
    for round, (got, update) in enumerate(zip(ours(config(name, server_learning_rate=0.3)), updates(), strict=True), 1):
        before = model.astype(np.float64)
        strategy.current_arrays = record(before) if name == "fedavgm" else {"model": before}
        content = RecordDict({"a": record(before + update), "m": MetricRecord({"num-examples": 5})})
        arrays, _ = strategy.aggregate_train(round, [Message(content, 1, "train")])
        model = arrays["model"].numpy().astype(np.float32)
        np.testing.assert_allclose(got, model, rtol=0, atol=1e-6)


def test_a_rate_that_is_given_is_used_and_what_is_not_finite_is_refused() -> None:
    model = np.zeros(P, np.float32)
    for bad in (np.nan, np.inf):
        with pytest.raises(ProtocolError, match="not finite"):
            server_step(config("fedavg"), model, np.full(P, bad), 1, {})


# -- several updates -------------------------------------------------------------------------------------------------


def krum_scores(many: Vector, f: int) -> list[float]:
    """Blanchard et al.: the sum of squared distances to the n - f - 2 nearest others."""
    scores = []
    for i, one in enumerate(many):
        distances = sorted(float(((one - other) ** 2).sum()) for j, other in enumerate(many) if j != i)
        scores.append(sum(distances[: len(many) - f - 2]))
    return scores


def by_krum(many: Vector, f: int, count: int) -> Vector:
    return many[np.argsort(krum_scores(many, f))[:count]]


def bulyan(many: Vector, f: int) -> Vector:
    """Select n - 2f by Krum, then average by coordinate the n - 4f values nearest to the median."""
    chosen = by_krum(many, f, len(many) - 2 * f)
    middle = np.median(chosen, axis=0)
    order = np.argsort(np.abs(chosen - middle), axis=0)[: len(many) - 4 * f]
    return np.take_along_axis(chosen, order, axis=0).mean(axis=0)


def trimmed(many: Vector, f: int) -> Vector:
    return np.sort(many, axis=0)[f : len(many) - f].mean(axis=0)


ROBUST: dict[str, tuple[Callable[[Vector, int], Vector], int]] = {
    "krum": (lambda many, f: by_krum(many, f, 1)[0], 5),
    "multikrum": (lambda many, f: by_krum(many, f, len(many) - f - 2).mean(axis=0), 5),
    "median": (lambda many, f: np.median(many, axis=0), 3),
    "trimmed_mean": (trimmed, 3),
    "bulyan": (bulyan, 7),
}


@pytest.mark.parametrize("name", ROBUST)
@pytest.mark.parametrize("more", [0, 1, 4])
def test_a_robust_update_is_the_published_one_and_withstands_one_poisoned(name: str, more: int) -> None:
    expected, least = ROBUST[name]
    rng = np.random.default_rng(more)
    many = 0.1 + rng.normal(0, 0.01, (least + more, P))
    many[rng.integers(least + more)] = -40.0
    got = robust_update(config(name), list(many), 1)
    np.testing.assert_allclose(got, expected(many, 1), rtol=1e-9, atol=1e-12)
    assert np.abs(got - 0.1).max() < 0.05
    assert np.abs(many.mean(axis=0) - 0.1).max() > 1, "the plain mean does not withstand it"


@pytest.mark.parametrize("count", range(3, 60, 7))
@pytest.mark.parametrize("f", [0, 1, 2, 5])
def test_a_trimmed_mean_cuts_exactly_f_at_each_end(count: int, f: int) -> None:
    if count < 2 * f + 1:
        return
    many = np.random.default_rng(count).normal(size=(count, 2))
    np.testing.assert_allclose(robust_update(config("trimmed_mean", byzantine=f), list(many), 1), trimmed(many, f))


@pytest.mark.parametrize("name", ROBUST)
def test_too_few_updates_are_refused(name: str) -> None:
    least = ROBUST[name][1]
    with pytest.raises(ProtocolError, match=f"at least {least} updates to withstand 1 poisoned, got {least - 1}"):
        robust_update(config(name), [np.zeros(P)] * (least - 1), 1)
    with pytest.raises(ProtocolError, match="takes the mean"):
        robust_update(config("fedadam"), [np.zeros(P)], 1)
