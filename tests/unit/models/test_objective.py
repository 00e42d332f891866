"""Losses are one a record, scores are sums, and shapes that would broadcast are refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from qfed.errors import ConfigError, ShapeError
from qfed.models import loss, score


def test_cross_entropy_by_hand() -> None:
    outputs = torch.tensor([[0.0, 0.0], [math.log(3), 0.0], [math.log(3), 0.0]])
    found = loss("classification")(outputs, torch.tensor([1, 0, 1]))
    torch.testing.assert_close(found, torch.tensor([math.log(2), math.log(4 / 3), math.log(4)]))


def test_squared_error_by_hand() -> None:
    found = loss("regression")(torch.tensor([[0.5], [-1.0]]), torch.tensor([0.0, 1.0]))
    assert found.tolist() == [0.25, 4]


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_empty_batch(task: str) -> None:
    width = 2 if task == "classification" else 1
    y = torch.zeros(0, dtype=torch.int64 if task == "classification" else torch.float32)
    assert loss(task)(torch.zeros(0, width), y).shape == (0,)
    assert score(task, torch.zeros(0, width), y) == (0.0, 0.0)


@pytest.mark.parametrize("of", [torch.tensor, np.array])
def test_scores_are_sums(of: type) -> None:
    assert score("classification", of([[1.0, 0], [0, 1], [3, 2]]), of([0, 1, 1])) == (2.0, 3.0)
    assert score("regression", of([[0.5], [-1.0]]), of([0.0, 1.0])) == (4.25, 2.0)


def test_score_of_a_diverged_model_is_no_success() -> None:
    outputs = torch.tensor([[math.nan, math.nan], [math.inf, 0.0], [1.0, 0.0]])
    assert score("classification", outputs, torch.tensor([0, 0, 0])) == (1.0, 3.0)
    assert math.isnan(score("regression", torch.tensor([[math.nan]]), torch.tensor([0.0]))[0])


@pytest.mark.parametrize(
    ("task", "outputs", "y"),
    [
        ("regression", (3,), (3,)),
        ("regression", (3, 1), (3, 1)),
        ("regression", (3, 2), (3,)),
        ("regression", (3, 1), (2,)),
        ("classification", (3, 2), (2,)),
        ("classification", (3, 1), (3,)),
        ("classification", (3,), (3,)),
    ],
)
def test_shapes_that_do_not_fit_are_refused(task: str, outputs: tuple[int, ...], y: tuple[int, ...]) -> None:
    targets = torch.zeros(y, dtype=torch.int64 if task == "classification" else torch.float32)
    with pytest.raises(ShapeError, match=f"{task} takes"):
        loss(task)(torch.zeros(outputs), targets)
    with pytest.raises(ShapeError, match=f"{task} takes"):
        score(task, torch.zeros(outputs), targets)


def test_unknown_task_is_named() -> None:
    with pytest.raises(ConfigError, match="'ranking'"):
        loss("ranking")
    with pytest.raises(ConfigError, match="'ranking'"):
        score("ranking", torch.zeros(1, 2), torch.zeros(1))
