"""What simulated records are good for: train on them, test on real ones that nobody counted (TSTR).

    forest      random forest, 200 trees                   (scikit-learn)
    linear      logistic regression, or ridge for a number (scikit-learn)
    hybrid      the configuration's [model]                (qfed.models), `EPOCHS` of Adam without privacy

All see the scaled values of the columns, as who trains on a file of simulated records and then meets real ones would.
Scores: share of right answers; for a number, R^2. Source of TSTR: Esteban, Hyland, Raetsch, arXiv:1706.02633 (2017).
Shapes  records x (N, F), y (N,)      Cost  seconds a training set
Errors  none of its own; a training set with one class only scores as that class
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from qfed.config import ModelConfig
from qfed.data import Records
from qfed.models import build
from qfed.models.objective import loss, score

TREES = 200
EPOCHS, BATCH, LEARNING_RATE = 10, 64, 0.02
SCORES = ("forest", "linear", "hybrid")


def usefulness(
    train: Records, test: Records, task: str, outputs: int, model: ModelConfig | None, seed: int
) -> Mapping[str, float]:
    """Scores on `test` of what was trained on `train`; no hybrid model without `model`."""
    found = {
        "forest": _forest(task, seed).fit(train.x, train.y).score(test.x, test.y),
        "linear": _linear(task, train.y).fit(train.x, train.y).score(test.x, test.y),
    }
    if model is not None:
        found["hybrid"] = _hybrid(train, test, task, outputs, model, seed)
    return {name: float(value) for name, value in found.items()}


def _forest(task: str, seed: int) -> Any:
    kind = RandomForestClassifier if task == "classification" else RandomForestRegressor
    return kind(TREES, random_state=seed)


def _linear(task: str, y: npt.NDArray[Any]) -> Any:
    if task != "classification":
        return Ridge()
    return LogisticRegression(max_iter=500) if len(np.unique(y)) > 1 else DummyClassifier()


def _hybrid(train: Records, test: Records, task: str, outputs: int, model: ModelConfig, seed: int) -> float:
    module = build(model, train.x.shape[1], outputs, seed)
    objective, adam = loss(task), torch.optim.Adam(module.parameters(), lr=LEARNING_RATE)
    order = torch.Generator().manual_seed(seed)
    data = TensorDataset(torch.from_numpy(train.x), torch.from_numpy(train.y))
    for _ in range(EPOCHS):
        for x, y in DataLoader(data, BATCH, shuffle=True, generator=order):
            adam.zero_grad()
            mean: Tensor = objective(module(x), y).mean()
            mean.backward()  # type: ignore[no-untyped-call]
            adam.step()
    with torch.no_grad():
        right, of = score(task, module(torch.from_numpy(test.x)), test.y)
    if task == "classification":
        return right / of
    return 1 - right / max(float(np.sum((test.y - test.y.mean()) ** 2)), 1e-12)
